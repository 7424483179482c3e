// umap-learn's fuzzy set: smooth.rs, exp.rs and symmetric.rs, with their bits: the same operations in the same order, each rounded once.
// Rows of k neighbours; an edge of weight 0 is none.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 WARPS = 4;

__device__ double exponential(double x) {
    const double LOWEST = -700, WHOLE = 6755399441055744.0;
    if (!(x > LOWEST)) return 0;
    const double shifted = __dadd_rn(__dmul_rn(x, 1.44269504088896340736), WHOLE), n = __dsub_rn(shifted, WHOLE);
    const double r = __dsub_rn(__dsub_rn(x, __dmul_rn(n, 0x1.62e42feep-1)), __dmul_rn(n, 0x1.a39ef35793c76p-33));
    const double terms[13] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
                              1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1,           1};
    double series = 1.0 / 6227020800.0;
#pragma unroll
    for (int i = 0; i < 13; i++) series = __dadd_rn(__dmul_rn(series, r), terms[i]);
    return __longlong_as_double(__double_as_longlong(series) + (__double_as_longlong(shifted) << 52));
}

// Weights of each cell's edges: how far a neighbour lies beyond the nearest, by the cell's own scale. A thread a cell.
extern "C" __global__ void weigh(const float* distances, u32 n, u32 k, double local_connectivity, double mean, double target,
                                 float* weights) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const float* row = distances + (size_t)i * k;
    u32 zeros = 0;
    while (zeros < k && row[zeros] == 0) zeros++;
    const float* positive = row + zeros;
    const u32 n_positive = k - zeros;
    const double whole = floor(local_connectivity);
    float rho = 0;
    if (n_positive > 0) {
        const float part = (float)__dsub_rn(local_connectivity, whole);
        if ((double)n_positive < local_connectivity) {
            rho = positive[n_positive - 1];
        } else {
            const u32 index = (u32)whole;
            if (index == 0) {
                rho = __fmul_rn(part, positive[0]);
            } else if ((double)part > 1e-5 && index < n_positive) {
                rho = __fadd_rn(positive[index - 1], __fmul_rn(part, __fsub_rn(positive[index], positive[index - 1])));
            } else {
                rho = positive[index - 1];
            }
        }
    }
    u32 at_one = 0;
    while (at_one < k && __fsub_rn(row[at_one], rho) <= 0) at_one++;
    const double UNBOUNDED = 3.4028234663852886e38;
    double low = 0, high = UNBOUNDED, sigma = 1;
    for (u32 step = 0; step < 64; step++) {
        double beyond = 0;
        for (u32 e = at_one; e < k; e++) {
            beyond = __dadd_rn(beyond, exponential(-__ddiv_rn((double)__fsub_rn(row[e], rho), sigma)));
        }
        const double sum = __dadd_rn((double)at_one, beyond);
        if (fabs(__dsub_rn(sum, target)) < 1e-5) break;
        if (sum > target) {
            high = sigma;
            sigma = __dmul_rn(__dadd_rn(low, high), 0.5);
        } else {
            low = sigma;
            sigma = high >= UNBOUNDED ? __dmul_rn(sigma, 2.0) : __dmul_rn(__dadd_rn(low, high), 0.5);
        }
    }
    double least = mean;
    if (rho > 0) {
        double sum = 0;
        for (u32 e = 0; e < k; e++) sum = __dadd_rn(sum, (double)row[e]);
        least = __ddiv_rn(sum, (double)(k + 1));
    }
    sigma = (double)__double2float_rn(fmax(sigma, __dmul_rn(1e-3, least)));
    for (u32 e = 0; e < k; e++) {
        const double beyond = (double)__fsub_rn(row[e], rho);
        weights[(size_t)i * k + e] = beyond <= 0 || sigma == 0 ? 1 : __double2float_rn(exponential(-__ddiv_rn(beyond, sigma)));
    }
}

// Edges that come in at each cell. A thread an edge.
extern "C" __global__ void count(const u32* indices, const float* weights, u32 n_edges, u32* counts) {
    const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e < n_edges && weights[e] != 0) atomicAdd(&counts[indices[e]], 1);
}

// Puts each edge where it comes in, from `starts` of the cell on, in any order. `left` holds the counts, and 0 in the end.
extern "C" __global__ void turn(const u32* indices, const float* weights, u32 n_edges, u32 k, const u32* starts, u32* left, u32* tails,
                                float* incoming) {
    const u32 e = blockIdx.x * blockDim.x + threadIdx.x;
    if (e >= n_edges || weights[e] == 0) return;
    const u32 head = indices[e], slot = starts[head] + atomicSub(&left[head], 1) - 1;
    tails[slot] = e / k;
    incoming[slot] = weights[e];
}

__device__ float joined(float a, float b, float ratio, float rest) {
    const float both = __fmul_rn(a, b);
    return __fadd_rn(__fmul_rn(ratio, __fsub_rn(__fadd_rn(a, b), both)), __fmul_rn(rest, both));
}

// Edges that leave and those that come in, joined, in any order; how many there are. `twice`: the first cell with a neighbour twice.
// A cell's edges have k + (edges that come in) places, from k i + starts[i] on. A warp a cell.
extern "C" __global__ void __launch_bounds__(32 * WARPS) join(const u32* indices, const float* weights, u32 n, u32 k, const u32* starts,
                                                              const u32* tails, const float* incoming, float ratio, float rest,
                                                              u32* keys, float* values, u32* lengths, u32* twice) {
    const u32 lane = threadIdx.x % 32, i = blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= n) return;
    const u32* own = indices + (size_t)i * k;
    const u32 first = starts[i], last = starts[i + 1];
    const u64 row = (u64)k * i + first;
    u32 length = 0;
    for (u32 round = 0; round < k + (last - first); round += 32) {
        const u32 at = round + lane;
        u32 other = 0;
        float weight = 0;
        if (at < k) {
            other = own[at];
            float back = 0;
            for (u32 e = first; e < last; e++) back = tails[e] == other ? incoming[e] : back;
            for (u32 e = at + 1; e < k; e++) {
                if (own[e] == other) atomicMin(twice, i);
            }
            weight = joined(weights[(size_t)i * k + at], back, ratio, rest);
        } else if (at - k < last - first) {
            other = tails[first + at - k];
            bool known = false;
            for (u32 e = 0; e < k; e++) known |= own[e] == other;
            weight = known ? 0 : joined(0, incoming[first + at - k], ratio, rest);
        }
        const u32 edges = __ballot_sync(ALL, weight != 0);
        if (weight != 0) {
            const u64 to = row + length + __popc(edges & ((1u << lane) - 1));
            keys[to] = other;
            values[to] = weight;
        }
        length += __popc(edges);
    }
    if (lane == 0) lengths[i] = length;
}

// Rows of the graph, ascending: each edge goes behind those to smaller cells. A warp a cell.
extern "C" __global__ void __launch_bounds__(32 * WARPS) settle(const u32* starts, u32 n, u32 k, const u32* keys, const float* values,
                                                                const u64* indptr, u32* indices, float* weights) {
    const u32 lane = threadIdx.x % 32, i = blockIdx.x * WARPS + threadIdx.x / 32;
    if (i >= n) return;
    const u64 from = (u64)k * i + starts[i], to = indptr[i];
    const u32 length = (u32)(indptr[i + 1] - to);
    for (u32 a = 0; a < length; a += 32) {
        const u32 mine = a + lane < length ? keys[from + a + lane] : 0;
        u32 smaller = 0;
        for (u32 b = 0; b < length; b += 32) {
            const u32 other = b + lane < length ? keys[from + b + lane] : ALL;
            for (u32 j = 0; j < 32; j++) smaller += __shfl_sync(ALL, other, j) < mine;
        }
        if (a + lane >= length) continue;
        indices[to + smaller] = mine;
        weights[to + smaller] = values[from + a + lane];
    }
}
