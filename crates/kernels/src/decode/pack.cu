// Rows to packed chunks, byte for byte those of encode.rs: first how long each block gets, then where it goes, then the bytes. The header
// is the host's. blockIdx.y is the chunk. One warp a block of 128 numbers (of entries: their columns and their values).

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 HEADER = 64, BLOCK = 128, PAD = 16, WIDEST = 24, RAW = 31, WHOLE = 1 << 24, PATCH = 1;

struct Shape {
    u32 width, exceptions, high;
    __device__ u32 bytes() const { return 16 * width + exceptions * (1 + (1u << high)); }
    __device__ u32 control() const { return width | high << 5 | exceptions << 8; }
};

__device__ Shape shape_of(u32 control) { return Shape{control & 31, control >> 8 & 255, control >> 5 & 3}; }

__device__ u32 all_of(u32 bits) {
    for (u32 d = 16; d > 0; d /= 2) bits |= __shfl_xor_sync(ALL, bits, d);
    return bits;
}

// `cheapest` of encode.rs.
__device__ Shape cheapest(const u32 n[4]) {
    const u32 bits = 32 - __clz(all_of(n[0] | n[1] | n[2] | n[3]));
    Shape best{WIDEST, 0, 0};
    u32 least = ALL;
    if (bits <= WIDEST) {
        best.width = bits;
        least = 16 * bits;
    }
    for (u32 width = min(bits, WIDEST + 1); width-- > 0;) {
        u32 exceptions = 0;
        for (u32 i = 0; i < 4; i++) exceptions += __popc(__ballot_sync(ALL, n[i] >> width != 0));
        const u32 over = bits - width, high = over <= 8 ? 0 : over <= 16 ? 1 : 2;
        const u32 cost = 16 * width + exceptions * (1 + (1u << high) + PATCH);
        if (cost < least) {
            best = Shape{width, exceptions, high};
            least = cost;
        }
        if (exceptions * (2 + PATCH) > least) break;
    }
    return best;
}

// The rows that stay: `to`, their first entries among the entries that stay, and one more; `from`, where they lie.
struct Rows {
    const u32 *to, *from, *columns;
    const float* values;
};

// A chunk: its rows that stay and its blocks.
struct Piece {
    u32 row, n_rows, entry, nnz, unit, row_blocks, blocks;
    __device__ Piece(const Rows& rows, const u32* piece_rows, const u32* piece_units) {
        const u32 p = blockIdx.y;
        row = piece_rows[p];
        n_rows = piece_rows[p + 1] - row;
        entry = rows.to[row];
        nnz = rows.to[row + n_rows] - entry;
        unit = piece_units[p];
        row_blocks = (n_rows + BLOCK - 1) / BLOCK;
        blocks = (nnz + BLOCK - 1) / BLOCK;
    }
    __device__ u32 units() const { return row_blocks + blocks; }
};

__device__ void lengths(const Rows& rows, const Piece& piece, u32 block, u32 lane, u32 n[4]) {
    for (u32 i = 0; i < 4; i++) {
        const u32 r = block * BLOCK + 4 * lane + i;
        n[i] = r < piece.n_rows ? rows.to[piece.row + r + 1] - rows.to[piece.row + r] : 0;
    }
}

// Gaps and values of the lane's four entries, filled up as encode.rs does.
__device__ void entries(const Rows& rows, const Piece& piece, u32 block, u32 lane, u32 gaps[4], float values[4]) {
    const u32 first = piece.entry + block * BLOCK, end = piece.entry + piece.nnz;
    u32 e = first + 4 * lane, low = piece.row, high = piece.row + piece.n_rows;
    // The last row that starts at or before the entry.
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (rows.to[middle] <= e) low = middle;
        else high = middle;
    }
    float filling = 0;
    for (u32 i = 0; i < 4; i++, e++) {
        gaps[i] = 0;
        values[i] = 0;
        if (e < end) {
            while (e >= rows.to[low + 1]) low++;
            const u32 at = rows.from[low] + (e - rows.to[low]);
            const u32 column = rows.columns[at];
            gaps[i] = e == rows.to[low] ? column : column - rows.columns[at - 1] - 1;
            values[i] = rows.values[at];
        }
        if (i == 0) filling = __shfl_sync(ALL, values[0], 0);
        if (e >= end) values[i] = filling;
    }
}

// Values as numbers, less one if none is zero; whether they all are whole numbers up to 2^24.
__device__ bool whole(const float values[4], u32 n[4], u32& less) {
    u32 differ = 0, least = ALL, most = 0;
    for (u32 i = 0; i < 4; i++) {
        const int number = __float2int_rz(values[i]);
        differ |= __float_as_uint((float)number) ^ __float_as_uint(values[i]);
        n[i] = (u32)number;
        least = min(least, n[i]);
        most = max(most, n[i]);
    }
    for (u32 d = 16; d > 0; d /= 2) {
        least = min(least, __shfl_xor_sync(ALL, least, d));
        most = max(most, __shfl_xor_sync(ALL, most, d));
    }
    if (all_of(differ) != 0 || most > WHOLE) return false;
    less = min(least, 1u);
    for (u32 i = 0; i < 4; i++) n[i] -= less;
    return true;
}

// Control bytes of each block, of columns below those of values, and its bytes.
extern "C" __global__ void __launch_bounds__(256) measure(const u32* to, const u32* from, const u32* columns, const float* values,
                                                          const u32* piece_rows, const u32* piece_units, u32* controls, u32* sizes) {
    const Rows rows{to, from, columns, values};
    const Piece piece(rows, piece_rows, piece_units);
    const u32 lane = threadIdx.x % 32, unit = blockIdx.x * 8 + threadIdx.x / 32;
    if (unit >= piece.units()) return;
    u32 n[4], control, bytes;
    if (unit < piece.row_blocks) {
        lengths(rows, piece, unit, lane, n);
        const Shape shape = cheapest(n);
        control = shape.control();
        bytes = shape.bytes();
    } else {
        float v[4];
        entries(rows, piece, unit - piece.row_blocks, lane, n, v);
        const Shape shape = cheapest(n);
        u32 less = 0;
        if (whole(v, n, less)) {
            const Shape second = cheapest(n);
            control = shape.control() | (second.control() | less << 7) << 16;
            bytes = shape.bytes() + second.bytes();
        } else {
            control = shape.control() | RAW << 16;
            bytes = shape.bytes() + 4 * BLOCK;
        }
    }
    if (lane == 0) {
        controls[piece.unit + unit] = control;
        sizes[piece.unit + unit] = bytes;
    }
}

// Bytes of each block to where it starts in its chunk; bytes of each chunk. A block of 256 threads a chunk.
extern "C" __global__ void __launch_bounds__(256) place(const u32* to, const u32* piece_rows, const u32* piece_units, u32* sizes, u32* lens) {
    __shared__ u32 warps[8];
    const Rows rows{to, nullptr, nullptr, nullptr};
    const Piece piece(rows, piece_rows, piece_units);
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32;
    u32 at = HEADER + 2 * piece.row_blocks + 4 * piece.blocks;
    for (u32 first = 0; first < piece.units(); first += 256) {
        const bool inside = first + t < piece.units();
        u32* own = sizes + piece.unit + first + t;
        const u32 size = inside ? *own : 0;
        u32 sum = size;
        for (u32 d = 1; d < 32; d *= 2) {
            const u32 before = __shfl_up_sync(ALL, sum, d);
            if (lane >= d) sum += before;
        }
        if (lane == 31) warps[warp] = sum;
        __syncthreads();
        u32 before = 0, all = 0;
        for (u32 w = 0; w < 8; w++) {
            before += w < warp ? warps[w] : 0;
            all += warps[w];
        }
        if (inside) *own = at + before + sum - size;
        at += all;
        __syncthreads();
    }
    if (t == 0) lens[blockIdx.y] = at + PAD;
}

// Numbers at `out`: low parts, eight of which fill whole bytes, then positions and high parts of the exceptions. `mine`: 128 words.
__device__ void write(u8* out, const u32 n[4], Shape shape, u32* mine, u32 lane) {
    const u32 mask = (1u << shape.width) - 1;
    for (u32 i = 0; i < 4; i++) mine[4 * lane + i] = n[i] & mask;
    __syncwarp();
    for (u32 w = lane; w < 4 * shape.width; w += 32) {
        u32 k = 32 * w / shape.width, word = 0;
        for (int bit = (int)(k * shape.width) - (int)(32 * w); bit < 32 && k < BLOCK; bit += shape.width, k++) {
            word |= bit < 0 ? mine[k] >> -bit : mine[k] << bit;
        }
        for (u32 b = 0; b < 4; b++) out[4 * w + b] = (u8)(word >> (8 * b));
    }
    __syncwarp();
    if (shape.exceptions == 0) return;
    u32 place = 0;
    for (u32 i = 0; i < 4; i++) place += __popc(__ballot_sync(ALL, n[i] >> shape.width != 0) & ((1u << lane) - 1));
    u8* positions = out + 16 * shape.width;
    u8* high = positions + shape.exceptions;
    for (u32 i = 0; i < 4; i++) {
        const u32 part = n[i] >> shape.width;
        if (part == 0) continue;
        positions[place] = (u8)(4 * lane + i);
        for (u32 b = 0; b < 1u << shape.high; b++) high[(place << shape.high) + b] = (u8)(part >> (8 * b));
        place++;
    }
}

// The bytes. `places`: where each chunk begins in `out`, which is zero.
extern "C" __global__ void __launch_bounds__(256)
pack_rows(const u32* to, const u32* from, const u32* columns, const float* values, const u32* piece_rows, const u32* piece_units,
          const u32* controls, const u32* starts, const u32* places, u8* out) {
    __shared__ u32 scratch[8][BLOCK];
    const Rows rows{to, from, columns, values};
    const Piece piece(rows, piece_rows, piece_units);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, unit = blockIdx.x * 8 + warp;
    if (unit >= piece.units()) return;
    out += places[blockIdx.y];
    const u32 control = controls[piece.unit + unit];
    u8* payload = out + starts[piece.unit + unit];
    u32 n[4];
    if (unit < piece.row_blocks) {
        lengths(rows, piece, unit, lane, n);
        write(payload, n, shape_of(control), scratch[warp], lane);
        if (lane < 2) out[HEADER + 2 * unit + lane] = (u8)(control >> (8 * lane));
        return;
    }
    const u32 block = unit - piece.row_blocks;
    float v[4];
    entries(rows, piece, block, lane, n, v);
    const Shape shape = shape_of(control & 0xffff);
    write(payload, n, shape, scratch[warp], lane);
    payload += shape.bytes();
    const u32 second = control >> 16;
    if (second == RAW) {
        for (u32 i = 0; i < 4; i++) {
            const u32 bits = __float_as_uint(v[i]);
            for (u32 b = 0; b < 4; b++) payload[4 * (4 * lane + i) + b] = (u8)(bits >> (8 * b));
        }
    } else {
        u32 less;
        whole(v, n, less);
        write(payload, n, Shape{second & 31, second >> 8, second >> 5 & 3}, scratch[warp], lane);
    }
    if (lane < 4) out[HEADER + 2 * piece.row_blocks + 4 * block + lane] = (u8)(control >> (8 * lane));
}
