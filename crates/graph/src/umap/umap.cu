// One epoch of a block of cells: layout.rs and force.rs, operation by operation, so that the bits are the same. A thread a cell.
// COORDINATES is defined before this text: 2 or 4.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 S = COORDINATES;
constexpr u32 FRACTION = 31;
constexpr u32 MOST = 512;
constexpr u32 AHEAD = 5;
constexpr u32 WEYL = 0x9e3779b9;
constexpr u64 NEGATIVES = 5, POOL = 6;

struct __align__(4 * S) Point {
    float c[S];
};

struct Forces {
    float a, b, alpha, attract, repel;  // attract = -2 a b, repel = 2 gamma b
    u32 negatives;
};

__device__ u32 scramble(u32 x) {
    x = (x ^ x >> 16) * 0x7feb352d;
    return (x ^ x >> 15) * 0x846ca68b;
}

// x^b by polynomials, as in force.rs.
__device__ float power(float x, float b) {
    const u32 bits = __float_as_uint(x);
    const int exponent = (int)(bits - 0x3f3504f3) >> 23;
    const float t = __fsub_rn(__uint_as_float(bits - ((u32)exponent << 23)), 1.0f);
    float q = __fmaf_rn(0.2526601f, t, -0.39457536f);
    q = __fmaf_rn(q, t, 0.48668618f);
    q = __fmaf_rn(q, t, -0.7202418f);
    q = __fmaf_rn(q, t, 1.442578f);
    const float log = __fmaf_rn(q, t, __int2float_rn(exponent));
    const float y = fminf(fmaxf(__fmul_rn(b, log), -126.0f), 126.0f);
    const float whole = rintf(y);
    const float f = __fsub_rn(y, whole);
    float p = __fmaf_rn(0.009570101f, f, 0.05591786f);
    p = __fmaf_rn(p, f, 0.2402474f);
    p = __fmaf_rn(p, f, 0.6931218f);
    p = __fmaf_rn(p, f, 0.9999993f);
    return __uint_as_float(__float_as_uint(p) + ((u32)(int)whole << 23));
}

__device__ float difference(const Point& here, const Point& there, Point& by) {
    float squared = 1e-30f;
#pragma unroll
    for (u32 c = 0; c < S; c++) {
        by.c[c] = __fsub_rn(here.c[c], there.c[c]);
        squared = __fmaf_rn(by.c[c], by.c[c], squared);
    }
    return squared;
}

__device__ void go(const Forces& forces, Point& here, const Point& by, float factor) {
#pragma unroll
    for (u32 c = 0; c < S; c++) {
        const float step = fminf(fmaxf(__fmul_rn(factor, by.c[c]), -4.0f), 4.0f);
        here.c[c] = __fmaf_rn(forces.alpha, step, here.c[c]);
    }
}

// McInnes et al. 2018: -2ab d^(2(b-1)) / (1 + a d^2b) (x - y).
__device__ void attract(const Forces& forces, Point& here, const Point& there) {
    Point by;
    const float squared = difference(here, there, by);
    const float raised = power(squared, forces.b);
    const float below = __fmul_rn(squared, __fmaf_rn(forces.a, raised, 1.0f));
    go(forces, here, by, __fdiv_rn(__fmul_rn(forces.attract, raised), below));
}

// McInnes et al. 2018: 2 gamma b / ((0.001 + d^2)(1 + a d^2b)) (x - y); a cell does not push itself.
__device__ void repel(const Forces& forces, Point& here, const Point& there, bool self) {
    Point by;
    const float squared = difference(here, there, by);
    const float raised = power(squared, forces.b);
    const float below = __fmul_rn(__fadd_rn(squared, 0.001f), __fmaf_rn(forces.a, raised, 1.0f));
    go(forces, here, by, self ? 0.0f : __fdiv_rn(forces.repel, below));
}

// The neighbours that attract in this epoch, one after the other: edges whose turn it is (`rate * epoch` has passed a whole number),
// of these every `turns`-th from `turn` on.
struct Walk {
    u64 edge;
    u32 fired;
    __device__ u32 next(const u32* targets, const u32* rates, u32 epoch, u32 turns, u32 turn) {
        while (true) {
            const u64 e = edge++;
            const u32 rate = rates[e];
            if ((rate * epoch & ((1u << FRACTION) - 1)) < rate && fired++ % turns == turn) return targets[e];
        }
    }
};

// Cells first .. first + count of one block; pool_size 0: others are drawn from all points.
extern "C" __global__ void __launch_bounds__(128) advance(const u64* indptr, const u32* targets, const u32* rates, const Point* points, u32 n,
                                                          const Point* pool, u32 pool_size, u32 first, u32 count, u32 epoch, u64 seed,
                                                          float a, float b, float alpha, float attraction, float repulsion, u32 negatives,
                                                          Point* moved) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const u32 cell = first + i;
    const Forces forces = {a, b, alpha, attraction, repulsion, negatives};
    Point here = points[cell];
    const u64 start = indptr[cell], end = indptr[cell + 1];
    u32 fired = 0;
    for (u64 e = start; e < end; e++) fired += (rates[e] * epoch & ((1u << FRACTION) - 1)) < rates[e];
    if (fired > 0) {
        u32 turns = 1, turn = 0, kept = fired;
        if (fired > MOST) {
            turns = (fired + MOST - 1) / MOST;
            turn = (u32)(random_bits(seed, POOL, ~0ull - cell, epoch) % turns);
            kept = (fired - turn + turns - 1) / turns;
        }
        u32 key = (u32)random_bits(seed, NEGATIVES, cell, epoch);
        Walk near = {start, 0}, far = {start, 0};
        u32 far_at = kept / 2;
        for (u32 k = 0; k < far_at; k++) far.next(targets, rates, epoch, turns, turn);
        const u32 range = pool_size ? pool_size : n;
        const Point* others = pool_size ? pool : points;
        auto pair = [&](Point& one, Point& two) {
            if (far_at == kept) {
                far = {start, 0};
                far_at = 0;
            }
            far_at++;
            one = points[near.next(targets, rates, epoch, turns, turn)];
            two = points[far.next(targets, rates, epoch, turns, turn)];
        };
        Point one, two;
        pair(one, two);
        for (u32 at = 0; at < kept; at++) {
            // The next pair, and some of those that push, are on their way while the first are at work.
            Point next_one = one, next_two = two;
            if (at + 1 < kept) pair(next_one, next_two);
            attract(forces, here, one);
            for (u32 s = 0; s < negatives; s += AHEAD) {
                Point other[AHEAD];
                u32 id[AHEAD];
#pragma unroll
                for (u32 k = 0; k < AHEAD; k++) {
                    id[k] = __umulhi(scramble(key + (k + 1) * WEYL), range);
                    other[k] = others[id[k]];
                }
#pragma unroll
                for (u32 k = 0; k < AHEAD; k++) {
                    if (s + k < negatives) {
                        key += WEYL;
                        repel(forces, here, other[k], !pool_size && id[k] == cell);
                    }
                }
            }
            attract(forces, here, two);
            one = next_one;
            two = next_two;
        }
    }
    moved[i] = here;
}

extern "C" __global__ void commit(const Point* moved, u32 first, u32 count, Point* points) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) points[first + i] = moved[i];
}

extern "C" __global__ void draw(const Point* points, u32 n, u32 pool_size, u64 turn, u64 seed, Point* pool) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pool_size) pool[i] = points[__umul64hi(random_bits(seed, POOL, turn, i), n)];
}
