// Decoded chunks to rows, and what quality control asks of them. One warp a row.

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
// Bits of found[0]: columns that do not rise or lie beyond the last; a value that is no whole number from 0 to 2^23.
constexpr u32 DISORDER = 2, NO_COUNT = 8;
constexpr u32 SETS = 8;
constexpr float LARGEST = 8388608.0f;

// A decoded chunk: its address, and the entries of a block. Shuffled: byte k of all entries of a block lies before byte k + 1 of them.
struct Chunk {
    u64 at;
    u32 block, shuffled;
};

// A vector of entries, of which the first that is wanted is entry `first` of the first chunk.
struct Vector {
    const Chunk* chunks;
    u32 first, chunk, size;
    __device__ u64 word(u32 entry) const {
        const u32 k = first + entry, c = k / chunk, inside = k - c * chunk;
        const Chunk found = chunks[c];
        const u32 b = inside / found.block, i = inside - b * found.block;
        const u8* from = (const u8*)found.at + (u64)b * found.block * size;
        u64 word = 0;
        if (found.shuffled) {
            const u32 n = min(found.block, chunk - b * found.block);
            for (u32 s = 0; s < size; s++) word |= (u64)from[(u64)s * n + i] << (8 * s);
        } else {
            for (u32 s = 0; s < size; s++) word |= (u64)from[(u64)i * size + s] << (8 * s);
        }
        return word;
    }
};

// Kinds of values.
constexpr u32 F32 = 0, F64 = 1, SIGNED = 2, UNSIGNED = 3;

__device__ float value_of(u64 word, u32 kind, u32 size) {
    if (kind == F32) return __uint_as_float((u32)word);
    if (kind == F64) return (float)__longlong_as_double((long long)word);
    if (kind == SIGNED) return (float)(size == 4 ? (long long)(int)(u32)word : (long long)word);
    return (float)word;
}

// `member`: the sets that a gene is in, one bit each. `facts`: [non-zeros; sums; sums over each set] of `n_rows` each.
extern "C" __global__ void __launch_bounds__(256)
read_rows(const Chunk* column_chunks, u32 column_first, u32 column_chunk, u32 column_size, const Chunk* value_chunks, u32 value_first,
          u32 value_chunk, u32 value_size, u32 kind, const u32* starts, const u32* ends, u32 n_rows, u32 n_cols, const u8* member, u32 sets,
          u32* columns, float* values, u32* n_genes, double* total, double* facts, u32* found) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows) return;
    const Vector c{column_chunks, column_first, column_chunk, column_size}, v{value_chunks, value_first, value_chunk, value_size};
    const u32 start = starts[row], end = ends[row];
    u32 flags = 0, genes = 0, largest = 0;
    u64 sum = 0, parts[SETS] = {};
    long long before = -1;
    for (u32 first = start; first < end; first += 32) {
        const u32 k = first + lane;
        const bool inside = k < end;
        const u64 column = inside ? c.word(k) : ~0ull;
        const float value = inside ? value_of(v.word(k), kind, value_size) : 0;
        const long long left = __shfl_up_sync(ALL, (long long)column, 1);
        if (inside) {
            if (column >= n_cols || (long long)column <= (lane ? left : before)) {
                flags |= DISORDER;
            } else {
                // -0 is no count that packing leaves whole.
                if (!(value >= 0 && value < LARGEST && value == truncf(value)) || __float_as_uint(value) >> 31) flags |= NO_COUNT;
                const u32 whole = (u32)value;
                genes += whole != 0;
                sum += whole;
                largest = max(largest, whole);
                if (sets) {
                    const u32 in = member[column];
                    if (in) {
#pragma unroll
                        for (u32 s = 0; s < SETS; s++) parts[s] += in >> s & 1 ? whole : 0;
                    }
                }
            }
            columns[k] = (u32)column;
            values[k] = value;
        }
        before = __shfl_sync(ALL, (long long)column, 31);
    }
    for (u32 d = 16; d > 0; d /= 2) {
        genes += __shfl_xor_sync(ALL, genes, d);
        sum += __shfl_xor_sync(ALL, sum, d);
        flags |= __shfl_xor_sync(ALL, flags, d);
        largest = max(largest, __shfl_xor_sync(ALL, largest, d));
    }
#pragma unroll
    for (u32 s = 0; s < SETS; s++) {
        if (s < sets) {
            for (u32 d = 16; d > 0; d /= 2) parts[s] += __shfl_xor_sync(ALL, parts[s], d);
            if (lane == 0) facts[(2 + s) * (u64)n_rows + row] = (double)parts[s];
        }
    }
    if (lane == 0) {
        n_genes[row] = genes;
        total[row] = (double)sum;
        facts[row] = (double)genes;
        facts[n_rows + row] = (double)sum;
        if (flags) atomicOr(found, flags);
        // Bits of floats that are not negative are ordered as they are.
        const u32 bits = __float_as_uint((float)largest);
        if (bits > found[1]) atomicMax(found + 1, bits);
    }
}

// words[column] += value << 16 | (value != 0), of the rows that are kept, or of all: totals/cpu.rs, `column_counts`.
extern "C" __global__ void __launch_bounds__(256) gene_counts(const u32* starts, const u32* ends, const u32* columns, const float* values,
                                                              u32 n_rows, const u8* keep, u64* words, const u32* found) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & DISORDER) || (keep && !keep[row])) return;
    for (u32 k = starts[row] + lane; k < ends[row]; k += 32) {
        const u64 whole = (u32)values[k];
        atomicAdd(&words[columns[k]], whole << 16 | (whole != 0));
    }
}
