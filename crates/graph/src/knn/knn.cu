// The nearest others of each row, among those of the lists that its own list visits (all pairs: of the only list there is). Scores
// |y|^2 - 2 x y come from tensor cores on half-precision rows and choose KEEP candidates a query; `rank` then takes exact distances in
// f32, with the roundings of kernel.rs. Needs compute capability 8.0. PAIRS and KEPT are defined before this text.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 WARPS = 8;       // of a block; each has 32 queries
constexpr u64 EMPTY = ~0ull;

// f32 to half precision.
__device__ u16 half_of(float x) {
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

__device__ float of_half(u16 h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

// halves[i, 0..width] = (x[i] - centre) * unit, filled up with zeros; norms[i] = |halves[i]|^2, infinite from n on. A warp a row.
extern "C" __global__ void __launch_bounds__(256) halves(const float* x, u32 n, u32 n_pad, u32 d, u32 width, const float* centre, float unit,
                                                         u16* out, float* norms) {
    const u32 row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n_pad) return;
    float sum = 0;
    for (u32 t = lane; t < width; t += 32) {
        const float value = row < n && t < d ? (x[(u64)row * d + t] - centre[t]) * unit : 0;
        const u16 h = half_of(value);
        out[(u64)row * width + t] = h;
        sum = fmaf(of_half(h), of_half(h), sum);
    }
    for (u32 s = 16; s > 0; s /= 2) sum += __shfl_xor_sync(ALL, sum, s);
    if (lane == 0) norms[row] = row < n ? sum : __int_as_float(0x7f800000);
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// Floats in the order of unsigned numbers.
__device__ u32 ordered(float x) {
    const u32 bits = __float_as_uint(x);
    return bits ^ (bits >> 31 ? ALL : 0x80000000);
}

__device__ float unordered(u32 bits) { return __uint_as_float(bits ^ (bits >> 31 ? 0x80000000 : ALL)); }

// Sorts 32 * E keys, E a lane (key i of the list in lane i % 32, place i / 32), ascending.
template <int E>
__device__ void sort(u64 key[E], u32 lane) {
    for (u32 size = 2; size <= 32 * E; size *= 2) {
        for (u32 step = size / 2; step > 0; step /= 2) {
            if (step >= 32) {
                const u32 far = step / 32;
#pragma unroll
                for (u32 e = 0; e < E; e++) {
                    if (!(e & far)) {
                        const bool up = !((e * 32 + lane) & size);
                        const u64 a = key[e], b = key[e | far];
                        if ((a > b) == up) {
                            key[e] = b;
                            key[e | far] = a;
                        }
                    }
                }
            } else {
#pragma unroll
                for (u32 e = 0; e < E; e++) {
                    const u64 other = __shfl_xor_sync(ALL, key[e], step);
                    const bool up = !((e * 32 + lane) & size), low = !(lane & step);
                    key[e] = (up == low) ? min(key[e], other) : max(key[e], other);
                }
            }
        }
    }
}

// Keeps the KEEP least keys of a list of at most CAP; returns the score of the last, or infinity.
template <int KEEP>
__device__ float prune(u64* list, u32& count, u32 lane) {
    constexpr int E = 2 * KEEP / 32;
    u64 key[E];
#pragma unroll
    for (u32 e = 0; e < E; e++) key[e] = e * 32 + lane < count ? list[e * 32 + lane] : EMPTY;
    sort<E>(key, lane);
#pragma unroll
    for (u32 e = 0; e < KEEP / 32; e++) list[e * 32 + lane] = key[e];
    count = min(count, (u32)KEEP);
    const u64 last = __shfl_sync(ALL, key[KEEP / 32 - 1], 31);
    return last == EMPTY ? __int_as_float(0x7f800000) : unordered((u32)(last >> 32));
}

__device__ void copy_16(void* to, const void* from) {
    const u32 at = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from));
}

__device__ void copy_4(void* to, const void* from) {
    const u32 at = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from));
}

// Queries that a block compares: rows first .. first + count, at most 256, of one list.
struct Block {
    u32 first, count, list;
};

// lists[b * 256 + q]: the KEEP candidates of least score for query q of this launch's block b, ascending; 2 KEEP places each. List l is
// rows starts[l] .. starts[l + 1], and visits the lists near[l * width ..].
template <int STEPS, int KEEP>  // STEPS pairs of k-steps of 16: rows are 32 STEPS wide
__device__ void scan_pairs(const u16* rows, const float* norms, u32 n_pad, const Block block, const u32* starts, const u32* near, u32 width,
                           u64* lists) {
    // Candidates in shared memory at a time; two tiles take less than 48 KiB.
    constexpr u32 TILE = STEPS < 3 ? 128 : 64;
    constexpr u32 WIDTH = 32 * STEPS, STRIDE = WIDTH + 8, CAP = 2 * KEEP;
    __shared__ __align__(16) u16 tile[2][TILE * STRIDE];
    __shared__ __align__(16) float tile_norms[2][TILE];
    __shared__ u32 counts[WARPS * 32];
    __shared__ float limits[WARPS * 32];
    const u32 t = threadIdx.x, lane = t % 32, warp = t / 32, group = lane / 4, part = lane % 4;
    counts[t] = 0;
    // Places without a query take nothing.
    limits[t] = t < block.count ? __int_as_float(0x7f800000) : __int_as_float(0xff800000);
    u64* own = lists + (u64)(blockIdx.x * WARPS * 32 + warp * 32) * CAP;
    u32* count = counts + warp * 32;
    float* limit = limits + warp * 32;

    // -2 x of 32 queries: two tiles of 16 rows.
    u32 a[2][2 * STEPS][4];
#pragma unroll
    for (u32 m = 0; m < 2; m++) {
#pragma unroll
        for (u32 s = 0; s < 2 * STEPS; s++) {
#pragma unroll
            for (u32 r = 0; r < 4; r++) {
                const u32 query = min(block.first + warp * 32 + m * 16 + group + (r % 2) * 8, n_pad - 1);
                const u32 value = *(const u32*)(rows + (u64)query * WIDTH + s * 16 + part * 2 + (r / 2) * 8);
                asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(a[m][s][r]) : "r"(value), "r"(0xC000C000u));
            }
        }
    }
    float bound[4];
    __syncwarp();
    for (u32 r = 0; r < 4; r++) bound[r] = limit[r * 8 + group];

    // The next tile: rows at .. at + TILE, of which those before `end` are candidates.
    const u32* visits = near + (u64)block.list * width;
    u32 visit = 0, at = 0, end = 0;
    auto advance = [&] {
        at += TILE;
        while (at >= end && visit < width) {
            const u32 list = visits[visit++];
            at = starts[list];
            end = starts[list + 1];
        }
        return at < end;
    };
    auto load = [&](u32 slot) {
        const u16* from = rows + (u64)at * WIDTH;
        for (u32 c = t; c < TILE * WIDTH / 8; c += WARPS * 32) {
            const u32 row = c / (WIDTH / 8), column = c % (WIDTH / 8) * 8;
            copy_16(&tile[slot][row * STRIDE + column], from + (u64)row * WIDTH + column);
        }
        if (t < TILE) {
            if (at + t < end) {
                copy_4(&tile_norms[slot][t], norms + at + t);
            } else {
                tile_norms[slot][t] = __int_as_float(0x7f800000);
            }
        }
        asm volatile("cp.async.commit_group;");
    };
    bool more = advance();
    if (more) load(0);
    for (u32 slot = 0; more; slot ^= 1) {
        const u32 first = at;
        more = advance();
        if (more) {
            load(slot ^ 1);
            asm volatile("cp.async.wait_group 1;");
        } else {
            asm volatile("cp.async.wait_group 0;");
        }
        __syncthreads();
#pragma unroll 2
        for (u32 c0 = 0; c0 < TILE; c0 += 8) {
            const float2 norm = *(const float2*)&tile_norms[slot][c0 + part * 2];
            float acc[2][4];
#pragma unroll
            for (u32 m = 0; m < 2; m++) {
                acc[m][0] = acc[m][2] = norm.x;
                acc[m][1] = acc[m][3] = norm.y;
            }
#pragma unroll
            for (u32 s = 0; s < STEPS; s++) {
                u32 b[4];
                const u32 at = (u32)__cvta_generic_to_shared(&tile[slot][(c0 + lane % 8) * STRIDE + s * 32 + lane / 8 * 8]);
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                             : "r"(at));
#pragma unroll
                for (u32 h = 0; h < 2; h++) {
#pragma unroll
                    for (u32 m = 0; m < 2; m++) {
                        const u32* x = a[m][2 * s + h];
                        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                            : "+f"(acc[m][0]), "+f"(acc[m][1]), "+f"(acc[m][2]), "+f"(acc[m][3])
                            : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(b[2 * h]), "r"(b[2 * h + 1]));
                    }
                }
            }
            // Of this thread's queries, row r is m = r / 2, half r % 2.
            bool near = false;
#pragma unroll
            for (u32 r = 0; r < 4; r++) near |= fminf(acc[r / 2][r % 2 * 2], acc[r / 2][r % 2 * 2 + 1]) < bound[r];
            if (__any_sync(ALL, near)) {
#pragma unroll
                for (u32 r = 0; r < 4; r++) {
#pragma unroll
                    for (u32 c = 0; c < 2; c++) {
                        const float score = acc[r / 2][r % 2 * 2 + c];
                        if (score < bound[r]) {
                            const u32 query = r * 8 + group;
                            const u32 place = atomicAdd(&count[query], 1);
                            own[query * CAP + place] = (u64)ordered(score) << 32 | (first + c0 + part * 2 + c);
                        }
                    }
                }
                __syncwarp();
                u32 full = __ballot_sync(ALL, count[lane] > CAP - 8);
                if (full) {
                    while (full) {
                        const u32 query = __ffs(full) - 1;
                        full &= full - 1;
                        u32 here = count[query];
                        const float least = prune<KEEP>(own + query * CAP, here, lane);
                        __syncwarp();
                        if (lane == 0) {
                            count[query] = here;
                            limit[query] = least;
                        }
                        __syncwarp();
                    }
                    for (u32 r = 0; r < 4; r++) bound[r] = limit[r * 8 + group];
                }
            }
        }
        __syncthreads();
    }
    for (u32 query = 0; query < 32; query++) {
        u32 here = count[query];
        prune<KEEP>(own + query * CAP, here, lane);
        __syncwarp();
    }
}

extern "C" __global__ void __launch_bounds__(256) scan(const u16* rows, const float* norms, u32 n_pad, const Block* blocks, u32 first_block,
                                                       const u32* starts, const u32* near, u32 width, u64* lists) {
    scan_pairs<PAIRS, KEPT>(rows, norms, n_pad, blocks[first_block + blockIdx.x], starts, near, width, lists);
}

// The distance for a squared Euclidean distance: `Scale` of metric.rs, by its numbers.
__device__ float scaled(u32 scale, float squared) {
    const float part = scale == 1 || scale == 3 ? 0.5f * squared : squared;
    return scale == 0 || scale == 3 ? __fsqrt_rn(part) : part;
}

// Exact distances of the candidates, ascending by (distance, row), the query itself left out. A warp a query.
template <int KEEP>
__device__ void rank_rows(const float* x, u32 n, u32 d, const Block* blocks, u32 n_blocks, u32 k, u32 scale, const u64* lists, u32* ids,
                          float* distances) {
    constexpr int E = KEEP / 32;
    const u32 lane = threadIdx.x % 32, q = blockIdx.x * 8 + threadIdx.x / 32, place_of_block = q % (WARPS * 32);
    if (q >= n_blocks * WARPS * 32) return;
    const Block block = blocks[q / (WARPS * 32)];
    if (place_of_block >= block.count) return;
    const u32 query = block.first + place_of_block;
    const float* own = x + (u64)query * d;
    u64 key[E];
#pragma unroll
    for (u32 e = 0; e < E; e++) {
        const u64 candidate = lists[(u64)q * 2 * KEEP + e * 32 + lane];
        const u32 id = (u32)candidate;
        key[e] = EMPTY;
        if (candidate != EMPTY && id < n && id != query) {
            const float* other = x + (u64)id * d;
            float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            u32 t = 0;
            for (; t + 8 <= d; t += 8) {
#pragma unroll
                for (u32 l = 0; l < 8; l++) {
                    const float apart = __fsub_rn(own[t + l], other[t + l]);
                    sum[l] = __fmaf_rn(apart, apart, sum[l]);
                }
            }
#pragma unroll
            for (u32 l = 0; l < 8; l++) {
                if (t + l < d) {
                    const float apart = __fsub_rn(own[t + l], other[t + l]);
                    sum[l] = __fmaf_rn(apart, apart, sum[l]);
                }
            }
            const float squared = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
            const float distance = scaled(scale, squared);
            key[e] = (u64)__float_as_uint(distance) << 32 | id;
        }
    }
    sort<E>(key, lane);
#pragma unroll
    for (u32 e = 0; e < E; e++) {
        const u32 place = e * 32 + lane;
        if (place < k) {
            ids[(u64)query * k + place] = (u32)key[e];
            distances[(u64)query * k + place] = __uint_as_float((u32)(key[e] >> 32));
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rank(const float* x, u32 n, u32 d, const Block* blocks, u32 first_block,
                                                       u32 n_blocks, u32 k, u32 scale, const u64* lists, u32* ids, float* distances) {
    rank_rows<KEPT>(x, n, d, blocks + first_block, n_blocks, k, scale, lists, ids, distances);
}

#endif
