// Packed chunks to rows; the layout is described in mod.rs. Several chunks at a time: blockIdx.y is the chunk, and the bytes begin with
// a table of them. One warp a row: it reads the blocks that its row touches, so a block that reaches across rows is read once for each
// of them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// What was found, as bits of found[0]; found[1] is the largest value (bits of a float that is not negative).
constexpr u32 DAMAGED = 1;    // the layout contradicts itself
constexpr u32 COLUMN = 2;     // a column beyond the last
constexpr u32 CHECKSUM = 4;   // the bytes are not those that were written
constexpr u32 FRACTION = 8;   // a value that is no whole number
constexpr u32 NO_COUNT = 16;  // a value that is negative or not finite
constexpr u32 BAD = DAMAGED | COLUMN | CHECKSUM;

constexpr u32 HEADER = 64, BLOCK = 128, PAD = 16, WIDEST = 24, RAW = 31, LARGEST = 1 << 24;
constexpr u32 ALL = 0xffffffff;
// A column that leaves, and one that was never there: it is not counted.
constexpr u32 DROPPED = ALL, ABSENT = ALL - 1;

// A line of the table, as cuda.rs writes it.
struct Piece {
    u64 at, checksum, entry;            // byte of the chunk; its checksum; its first entry among those of all chunks
    u32 len, n_rows, nnz;               // as its header says
    u32 row, start, scratch;            // its first row, block of entries and block of row lengths among those of all chunks
    u32 made_here;                      // whether it was packed on this device: its checksum is not known
    u32 reserved[3];
};
static_assert(sizeof(Piece) == 64, "a line of the table");

__device__ Piece piece_of(const u8* bytes) { return ((const Piece*)bytes)[blockIdx.y]; }

struct Shape {
    u32 width, exceptions, high;
    __device__ Shape(u32 control, u32 exceptions) : width(control & 31), exceptions(exceptions), high(control >> 5) {}
    __device__ bool good() const { return width <= WIDEST && high <= 2; }
    __device__ u32 bytes() const { return 16 * width + exceptions * (1 + (1u << high)); }
};

// Two control bytes at an even address.
__device__ u32 control_at(const u8* bytes, u64 at) { return *(const u16*)(bytes + at); }

__device__ bool is_raw(u32 control) { return control == RAW; }

// Bits `at * 8 + bit .. + width` as a number, width <= 32.
__device__ u32 number(const u8* bytes, u32 at, u32 bit, u32 mask) {
    bit += (at & 3) * 8;
    const u32* word = (const u32*)(bytes + (at & ~3u)) + (bit >> 5);
    return __funnelshift_r(word[0], word[1], bit & 31) & mask;
}

// Numbers 4 lane .. 4 lane + 4 of the block at `at`. `highs`: 128 words of this warp.
__device__ void numbers(const u8* bytes, u32 at, Shape shape, u32 lane, u32* highs, u32 out[4]) {
    const u32 mask = (1u << shape.width) - 1;
    for (u32 i = 0; i < 4; i++) out[i] = number(bytes, at, (4 * lane + i) * shape.width, mask);
    if (shape.exceptions == 0) return;
    const u8* positions = bytes + at + 16 * shape.width;
    const u8* high = positions + shape.exceptions;
    for (u32 i = 0; i < 4; i++) highs[4 * lane + i] = 0;
    __syncwarp();
    for (u32 i = lane; i < shape.exceptions; i += 32) {
        u32 part = 0;
        for (u32 b = 0; b < 1u << shape.high; b++) part |= (u32)high[(i << shape.high) + b] << (8 * b);
        atomicOr(&highs[positions[i] % BLOCK], part << shape.width);
    }
    __syncwarp();
    for (u32 i = 0; i < 4; i++) out[i] |= highs[4 * lane + i];
    __syncwarp();
}

// The checksum of checksum.rs. `acc`: eight sums for each chunk, zero at first.
constexpr u64 STEP = 0x9E3779B97F4A7C15ull;
__device__ const u64 KEYS[8] = {0x243F6A8885A308D3ull, 0x13198A2E03707344ull, 0xA4093822299F31D0ull, 0x082EFA98EC4E6C89ull,
                                0x452821E638D01377ull, 0xBE5466CF34E90C6Cull, 0xC0AC29B7C97C50DDull, 0x3F84D5B5B5470917ull};

extern "C" __global__ void __launch_bounds__(256) checksum(const u8* bytes, u64* acc) {
    __shared__ u64 sums[8];
    const Piece piece = piece_of(bytes);
    bytes += piece.at;
    acc += 8 * blockIdx.y;
    if (threadIdx.x < 8) sums[threadIdx.x] = 0;
    __syncthreads();
    const u32 n = piece.len - HEADER;
    // Whole stripes of 64 bytes, and one more filled up with zeros.
    const u32 words = (n / 64 + 1) * 8;
    const u32 l = threadIdx.x % 8;
    u64 own = 0, other = 0;
    for (u32 w = blockIdx.x * blockDim.x + threadIdx.x; w < words; w += gridDim.x * blockDim.x) {
        u64 word = 0;
        if ((u64)w * 8 + 8 <= n) {
            word = ((const u64*)(bytes + HEADER))[w];
        } else {
            for (u32 b = 0; b < 8; b++) {
                if ((u64)w * 8 + b < n) word |= (u64)bytes[HEADER + w * 8 + b] << (8 * b);
            }
        }
        const u64 keyed = word ^ (KEYS[l] + (u64)(w / 8) * STEP);
        own += (keyed & 0xffffffff) * (keyed >> 32);
        other += word;
    }
    atomicAdd(&sums[l], own);
    atomicAdd(&sums[l ^ 1], other);
    __syncthreads();
    if (threadIdx.x < 8) atomicAdd(&acc[threadIdx.x], sums[threadIdx.x]);
}

__device__ u64 mix(const u64* acc, u64 len) {
    u64 hash = len * STEP;
    for (u32 l = 0; l < 8; l++) {
        const u64 lane = acc[l] + KEYS[l];
        hash = (hash ^ lane ^ (lane >> 29)) * STEP;
        hash = hash << 27 | hash >> 37;
    }
    hash ^= hash >> 32;
    hash *= 0xD6E8FEB86659FD93ull;
    return hash ^ hash >> 32;
}

// Exclusive sum over 1,024 threads; `total` is the sum of all.
__device__ u64 scan(u64 x, u64& total) {
    __shared__ u64 warps[32];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 sum = x;
    for (u32 d = 1; d < 32; d *= 2) {
        const u64 before = __shfl_up_sync(ALL, sum, d);
        if (lane >= d) sum += before;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u64 w = warps[lane];
        for (u32 d = 1; d < 32; d *= 2) {
            const u64 before = __shfl_up_sync(ALL, w, d);
            if (lane >= d) w += before;
        }
        warps[lane] = w;
    }
    __syncthreads();
    const u64 base = warp ? warps[warp - 1] : 0;
    total = warps[31];
    __syncthreads();
    return base + sum - x;
}

// One block of 1,024 threads a chunk: where each block of entries begins in it (`starts`), and where its rows end (`indptr`, one more
// than it has rows). `scratch`: one word for each block of row lengths. `acc`: what `checksum` left.
extern "C" __global__ void __launch_bounds__(1024) index_rows(const u8* bytes, const u64* acc, u32* scratch, u32* starts, u32* indptr,
                                                             u32* found) {
    __shared__ u32 highs[32][BLOCK];
    const Piece piece = piece_of(bytes);
    const u32 n_rows = piece.n_rows, nnz = piece.nnz, len = piece.len;
    bytes += piece.at;
    acc += 8 * blockIdx.y;
    scratch += piece.scratch;
    starts += piece.start;
    indptr += piece.row + blockIdx.y;
    constexpr u32 EACH = 8;
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32;
    const u32 row_blocks = (n_rows + BLOCK - 1) / BLOCK, blocks = (u32)(((u64)nnz + BLOCK - 1) / BLOCK);
    const u64 controls = HEADER + 2 * (u64)row_blocks;
    u64 at = controls + 4 * (u64)blocks, total;
    bool bad = !piece.made_here && mix(acc, len - HEADER) != piece.checksum;
    if (bad && t == 0) atomicOr(found, CHECKSUM);
    for (u32 first = 0; first < row_blocks; first += 1024) {
        const u32 i = first + t;
        u32 bytes_here = 0;
        if (i < row_blocks) {
            const u32 control = control_at(bytes, HEADER + 2 * (u64)i);
            const Shape shape(control & 255, control >> 8);
            bad |= !shape.good();
            bytes_here = shape.bytes();
        }
        const u64 before = scan(bytes_here, total);
        if (i < row_blocks) scratch[i] = (u32)(at + before);
        at += total;
    }
    for (u64 first = 0; first < blocks; first += 1024 * EACH) {
        u32 sizes[EACH];
        u64 sum = 0;
        for (u32 e = 0; e < EACH; e++) {
            const u64 i = first + t * EACH + e;
            sizes[e] = 0;
            if (i < blocks) {
                const u32 columns = control_at(bytes, controls + 4 * i), values = control_at(bytes, controls + 4 * i + 2);
                const Shape c(columns & 255, columns >> 8), v(values & 127, values >> 8);
                bad |= !c.good() || (!is_raw(values) && !v.good());
                sizes[e] = c.bytes() + (is_raw(values) ? 4 * BLOCK : v.bytes());
            }
            sum += sizes[e];
        }
        u64 place = at + scan(sum, total);
        for (u32 e = 0; e < EACH; e++) {
            const u64 i = first + t * EACH + e;
            if (i < blocks) starts[i] = (u32)place;
            place += sizes[e];
        }
        at += total;
    }
    bad |= at + PAD != len;
    if (__syncthreads_or(bad)) {
        if (t == 0) atomicOr(found, DAMAGED);
        return;
    }
    for (u32 b = warp; b < row_blocks; b += 32) {
        const u32 control = control_at(bytes, HEADER + 2 * (u64)b);
        u32 lengths[4];
        numbers(bytes, scratch[b], Shape(control & 255, control >> 8), lane, highs[warp], lengths);
        for (u32 i = 0; i < 4; i++) {
            const u32 row = b * BLOCK + 4 * lane + i;
            if (row < n_rows) indptr[row + 1] = lengths[i];
        }
    }
    __syncthreads();
    u64 end = 0;
    for (u32 first = 0; first < n_rows; first += 1024) {
        const u32 row = first + t;
        const u32 length = row < n_rows ? indptr[row + 1] : 0;
        const u64 before = scan(length, total);
        if (row < n_rows) indptr[row + 1] = (u32)min(end + before + length, (u64)nnz);
        end += total;
    }
    if (t == 0) {
        indptr[0] = 0;
        if (end != nnz) atomicOr(found, DAMAGED);
    }
}

// One warp a row. With CHOOSE, entry by entry `map[column]` where that is a number and the value is not zero, from the row's start on.
// Totals are those of totals/mod.rs, of all columns that are not ABSENT.
template <bool CHOOSE>
__device__ void unpack_row(const u8* bytes, u32 n_cols, const u32* starts, const u32* indptr, const u32* map, u32* columns, float* values,
                           u32* row_starts, u32* row_ends, u32* n_genes, double* totals, u32* found) {
    __shared__ u32 scratch[8][BLOCK];
    const Piece piece = piece_of(bytes);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 row = blockIdx.x * 8 + warp, n_rows = piece.n_rows;
    if (row >= n_rows || (found[0] & BAD)) return;
    bytes += piece.at;
    starts += piece.start;
    indptr += piece.row + blockIdx.y;
    columns += piece.entry;
    values += piece.entry;
    const u32 start = indptr[row], end = indptr[row + 1];
    const u8* controls = bytes + HEADER + 2 * ((n_rows + BLOCK - 1) / BLOCK);
    u32* mine = scratch[warp];
    u32 flags = 0, genes = 0, largest = 0, write = start;
    u64 sum = 0;
    double chain = 0;
    bool raw = false;
    if (start < end) {
        for (u32 b = start / BLOCK + lane; b <= (end - 1) / BLOCK; b += 32) raw |= is_raw(control_at(controls, 4 * (u64)b + 2));
        raw = __any_sync(ALL, raw);
        u32 carry = ALL;  // a row's first gap is its first column
        for (u32 b = start / BLOCK; b <= (end - 1) / BLOCK; b++) {
            const u32 about_columns = control_at(controls, 4 * (u64)b), about_values = control_at(controls, 4 * (u64)b + 2);
            const Shape shape(about_columns & 255, about_columns >> 8);
            const u32 at = starts[b], first = b * BLOCK + 4 * lane;
            u32 c[4];
            float v[4];
            numbers(bytes, at, shape, lane, mine, c);
            const u32 from = at + shape.bytes();
            u32 whole[4];
            if (is_raw(about_values)) {
                for (u32 i = 0; i < 4; i++) v[i] = __uint_as_float(number(bytes, from, (4 * lane + i) * 32, ALL));
            } else {
                numbers(bytes, from, Shape(about_values & 127, about_values >> 8), lane, mine, whole);
                const u32 less = (about_values >> 7) & 1;
                for (u32 i = 0; i < 4; i++) {
                    whole[i] += less;
                    if (whole[i] > LARGEST && first + i >= start && first + i < end) flags |= DAMAGED;
                    v[i] = (float)whole[i];
                }
            }
            u32 gaps = 0;
            bool inside[4];
            for (u32 i = 0; i < 4; i++) {
                inside[i] = first + i >= start && first + i < end;
                if (inside[i]) {
                    if (c[i] >= n_cols) {
                        flags |= COLUMN;
                        c[i] = 0;
                    }
                    gaps += c[i] + 1;
                    genes += v[i] != 0;
                    largest = max(largest, v[i] >= 0 ? __float_as_uint(v[i]) : 0);
                    if (!is_raw(about_values)) sum += whole[i];
                    if (!(v[i] >= 0 && v[i] < __int_as_float(0x7f800000))) flags |= NO_COUNT;
                    if (v[i] != truncf(v[i])) flags |= FRACTION;
                } else {
                    v[i] = 0;
                }
            }
            u32 running = gaps;
            for (u32 d = 1; d < 32; d *= 2) {
                const u32 before = __shfl_up_sync(ALL, running, d);
                if (lane >= d) running += before;
            }
            const u32 block_gaps = __shfl_sync(ALL, running, 31);
            u32 column = carry + running - gaps;
            for (u32 i = 0; i < 4; i++) {
                if (inside[i]) {
                    column += c[i] + 1;
                    if (column >= n_cols) flags |= COLUMN;
                }
                c[i] = min(column, n_cols - 1);
            }
            carry += block_gaps;
            u32 to[4];
            if (CHOOSE) {
                for (u32 i = 0; i < 4; i++) {
                    to[i] = inside[i] && v[i] != 0 ? map[c[i]] : DROPPED;
                    if (to[i] == ABSENT) {
                        genes--;
                        if (!is_raw(about_values)) sum -= whole[i];
                        v[i] = 0;
                    }
                }
            }
            if (raw) {
                for (u32 i = 0; i < 4; i++) mine[4 * lane + i] = __float_as_uint(v[i]);
                __syncwarp();
                if (lane < 8) {
                    // Position in the row modulo 8 is the lane.
                    const u32 low = max(b * BLOCK, start), high = min(b * BLOCK + BLOCK, end);
                    for (u32 k = low + ((lane - (low - start)) & 7); k < high; k += 8) chain += (double)__uint_as_float(mine[k % BLOCK]);
                }
                __syncwarp();
            }
            if (CHOOSE) {
                u32 kept = 0;
                for (u32 i = 0; i < 4; i++) kept += to[i] < ABSENT;
                u32 upto = kept;
                for (u32 d = 1; d < 32; d *= 2) {
                    const u32 before = __shfl_up_sync(ALL, upto, d);
                    if (lane >= d) upto += before;
                }
                u32 place = write + upto - kept;
                for (u32 i = 0; i < 4; i++) {
                    if (to[i] < ABSENT) {
                        columns[place] = to[i];
                        values[place++] = v[i];
                    }
                }
                write += __shfl_sync(ALL, upto, 31);
            } else if (inside[0] && inside[3]) {
                *(uint4*)(columns + first) = make_uint4(c[0], c[1], c[2], c[3]);
                *(float4*)(values + first) = make_float4(v[0], v[1], v[2], v[3]);
            } else {
                for (u32 i = 0; i < 4; i++) {
                    if (inside[i]) {
                        columns[first + i] = c[i];
                        values[first + i] = v[i];
                    }
                }
            }
        }
    }
    for (u32 d = 16; d > 0; d /= 2) {
        genes += __shfl_xor_sync(ALL, genes, d);
        sum += __shfl_xor_sync(ALL, sum, d);
        flags |= __shfl_xor_sync(ALL, flags, d);
        largest = max(largest, __shfl_xor_sync(ALL, largest, d));
    }
    // The order of totals/cpu.rs; whole numbers are exact in any order.
    chain += __shfl_down_sync(ALL, chain, 4);
    chain += __shfl_down_sync(ALL, chain, 2);
    chain += __shfl_down_sync(ALL, chain, 1);
    if (lane == 0) {
        const u32 at = piece.row + row, first = (u32)piece.entry;
        n_genes[at] = genes;
        totals[at] = raw ? chain : (double)sum;
        row_starts[at] = first + start;
        row_ends[at] = first + (CHOOSE ? write : end);
        if (flags) atomicOr(found, flags);
        if (largest > found[1]) atomicMax(found + 1, largest);
    }
}

extern "C" __global__ void __launch_bounds__(256) unpack(const u8* bytes, u32 n_cols, const u32* starts, const u32* indptr, u32* columns,
                                                         float* values, u32* row_starts, u32* row_ends, u32* n_genes, double* totals,
                                                         u32* found) {
    unpack_row<false>(bytes, n_cols, starts, indptr, nullptr, columns, values, row_starts, row_ends, n_genes, totals, found);
}

extern "C" __global__ void __launch_bounds__(256) unpack_columns(const u8* bytes, u32 n_cols, const u32* starts, const u32* indptr,
                                                                 const u32* map, u32* columns, float* values, u32* row_starts,
                                                                 u32* row_ends, u32* n_genes, double* totals, u32* found) {
    unpack_row<true>(bytes, n_cols, starts, indptr, map, columns, values, row_starts, row_ends, n_genes, totals, found);
}
