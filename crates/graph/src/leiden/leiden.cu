// Local moving and refinement of one level, slice by slice: what slices.rs says. A warp a vertex. WEIGHT is defined before this text:
// float or double. Sums of weights are whole numbers of `1 / scale`, so that their order does not matter.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned char u8;

constexpr u32 ALL = 0xffffffff;
constexpr u32 NOBODY = 0xffffffff;
constexpr u32 WARPS = 4;
constexpr double NOISE = 1e-12;

struct Graph {
    const u64* indptr;
    const u32* indices;
    const WEIGHT* weights;
    double scale;
};

__device__ i64 whole(WEIGHT weight, double scale) {
    return __double2ll_rn(__dmul_rn((double)weight, scale));
}

// a b c, of which b and c are whole numbers.
__device__ double product(double a, i64 b, i64 c) {
    return __dmul_rn(__dmul_rn(a, __ll2double_rn(b)), __ll2double_rn(c));
}

// The sum of the weights of a row's edges whose key is `mine`; `key_of(edge)` is NOBODY where an edge does not count.
template <typename Key>
__device__ i64 sum_of(const Graph& graph, u64 start, u64 end, u32 mine, u32 lane, Key key_of) {
    i64 sum = 0;
    for (u64 b = start; b < end; b += 32) {
        const u64 edge = b + lane;
        const u32 key = edge < end ? key_of(edge) : NOBODY;
        const i64 weight = edge < end ? whole(graph.weights[edge], graph.scale) : 0;
        const u32 many = end - b < 32 ? (u32)(end - b) : 32;
        for (u32 i = 0; i < many; i++) {
            const u32 other = __shfl_sync(ALL, key, i);
            const i64 adds = __shfl_sync(ALL, weight, i);
            sum += other == mine ? adds : 0;
        }
    }
    return sum;
}

// The largest value of a warp, of equals that of the lowest lane: its lane.
__device__ u32 largest(double& value, u32 lane) {
    u32 from = lane;
    for (u32 step = 16; step > 0; step /= 2) {
        const double other = __shfl_xor_sync(ALL, value, step);
        const u32 whose = __shfl_xor_sync(ALL, from, step);
        if (other > value || (other == value && whose < from)) {
            value = other;
            from = whose;
        }
    }
    return from;
}

// Whether a neighbour with a smaller number wants to change as well.
__device__ bool waits(const Graph& graph, u32 v, u32 lane, const u32* stamps, u32 stamp) {
    bool found = false;
    for (u64 edge = graph.indptr[v] + lane; edge < graph.indptr[v + 1]; edge += 32) {
        const u32 u = graph.indices[edge];
        found |= u < v && stamps[u] == stamp;
    }
    return __any_sync(ALL, found);
}

extern "C" __global__ void sums(const u32* membership, const i64* strengths, u32 n, i64* totals, u32* sizes) {
    const u32 v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v >= n) return;
    atomicAdd((u64*)&totals[membership[v]], (u64)strengths[v]);
    atomicAdd(&sizes[membership[v]], 1);
}

// Where each pending vertex of a slice wants to go: the community that gains most, or one of its own. `null` is resolution / 2m, both in
// whole numbers.
extern "C" __global__ void __launch_bounds__(32 * WARPS) want(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                              const u32* slice, u32 first, u32 count, const i64* strengths,
                                                              const u32* membership, const i64* totals, const u32* sizes, double null,
                                                              u32 stamp, u8* pending, u32* to, u32* stamps) {
    const u32 lane = threadIdx.x % 32, at = blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= count) return;
    const u32 v = slice[first + at];
    const bool asked = pending[v] != 0;
    __syncwarp();
    if (!asked) return;
    if (lane == 0) pending[v] = 0;
    const Graph graph = {indptr, indices, weights, scale};
    const u64 start = indptr[v], end = indptr[v + 1];
    const u32 own = membership[v];
    const i64 strength = strengths[v];
    auto community = [&](u64 edge) { return membership[indices[edge]]; };
    i64 here = 0;
    double most = -1.0 / 0.0;
    u32 best = own;
    for (u64 a = start; a < end; a += 32) {
        const u64 edge = a + lane;
        const u32 mine = edge < end ? community(edge) : NOBODY;
        const i64 sum = sum_of(graph, start, end, mine, lane, community);
        const u32 inner = __ballot_sync(ALL, mine == own);
        if (inner) here = __shfl_sync(ALL, sum, __ffs(inner) - 1);
        double value = -1.0 / 0.0;
        if (mine != own && mine != NOBODY) value = __dsub_rn(__ll2double_rn(sum), product(null, strength, totals[mine]));
        const u32 from = largest(value, lane);
        const u32 theirs = __shfl_sync(ALL, mine, from);
        if (value > most) {
            most = value;
            best = theirs;
        }
    }
    const double stay = __dsub_rn(__ll2double_rn(here), product(null, strength, totals[own] - strength));
    double value = __dadd_rn(stay, __dmul_rn(NOISE, __ll2double_rn(strength)));
    u32 target = own;
    if (most > value) {
        value = most;
        target = best;
    }
    // A community that is called after the vertex and is empty.
    if (value < 0 && sizes[own] > 1 && sizes[v] == 0) target = v;
    if (lane == 0 && target != own) {
        to[v] = target;
        stamps[v] = stamp;
    }
}

// Moves those that want to and need not wait; neighbours elsewhere are pending then.
extern "C" __global__ void __launch_bounds__(32 * WARPS) go(const u64* indptr, const u32* indices, const u32* slice, u32 first, u32 count,
                                                            const i64* strengths, u32* membership, i64* totals, u32* sizes, u32 stamp,
                                                            u8* pending, const u32* to, const u32* stamps, u64* changes) {
    const u32 lane = threadIdx.x % 32, at = blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= count) return;
    const u32 v = slice[first + at];
    if (stamps[v] != stamp) return;
    const Graph graph = {indptr, indices, nullptr, 0};
    if (waits(graph, v, lane, stamps, stamp)) {
        if (lane == 0) pending[v] = 1;
        return;
    }
    const u32 target = to[v];
    if (lane == 0) {
        const u32 own = membership[v];
        const u64 strength = (u64)strengths[v];
        atomicAdd((u64*)&totals[own], 0 - strength);
        atomicAdd((u64*)&totals[target], strength);
        atomicSub(&sizes[own], 1);
        atomicAdd(&sizes[target], 1);
        membership[v] = target;
        atomicAdd(changes, 1ull);
    }
    // No neighbour changes at the same time.
    for (u64 edge = indptr[v] + lane; edge < indptr[v + 1]; edge += 32) {
        const u32 u = indices[edge];
        if (membership[u] != target) pending[u] = 1;
    }
}

// The start of a refinement: every vertex is a cluster; those that are well connected to the rest of their community are pending.
extern "C" __global__ void __launch_bounds__(32 * WARPS) part(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                              u32 n, const i64* strengths, const u32* membership,
                                                              const i64* community_totals, double null, u8* pending, i64* inside,
                                                              i64* outside, u32* cluster, u32* sizes, i64* totals) {
    const u32 lane = threadIdx.x % 32, v = blockIdx.x * WARPS + threadIdx.x / 32;
    if (v >= n) return;
    const u32 own = membership[v];
    i64 sum = 0;
    for (u64 edge = indptr[v] + lane; edge < indptr[v + 1]; edge += 32) {
        if (membership[indices[edge]] == own) sum += whole(weights[edge], scale);
    }
    for (u32 step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    if (lane != 0) return;
    const i64 strength = strengths[v];
    inside[v] = outside[v] = sum;
    cluster[v] = v;
    sizes[v] = 1;
    totals[v] = strength;
    pending[v] = sum > 0 && __ll2double_rn(sum) >= product(null, strength, community_totals[own] - strength);
}

// Which cluster of its community each pending vertex of a slice that is still alone wants to join: of those well connected to the rest
// of the community the one that gains most. Of several that want to join one cluster, the first claims it.
extern "C" __global__ void __launch_bounds__(32 * WARPS) choose(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                                const u32* slice, u32 first, u32 count, const i64* strengths,
                                                                const u32* membership, const i64* community_totals, double null,
                                                                const u32* cluster, const u32* sizes, const i64* totals,
                                                                const i64* outside, u32 stamp, u8* pending, u32* to, i64* there,
                                                                u32* stamps, u64* claims) {
    const u32 lane = threadIdx.x % 32, at = blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= count) return;
    const u32 v = slice[first + at];
    const bool asked = pending[v] != 0;
    __syncwarp();
    if (!asked) return;
    if (lane == 0) pending[v] = 0;
    if (cluster[v] != v || sizes[v] != 1) return;
    const Graph graph = {indptr, indices, weights, scale};
    const u64 start = indptr[v], end = indptr[v + 1];
    const u32 own = membership[v];
    const i64 strength = strengths[v], all = community_totals[own];
    auto cluster_of = [&](u64 edge) {
        const u32 u = indices[edge];
        return membership[u] == own ? cluster[u] : NOBODY;
    };
    double most = -1.0 / 0.0;
    u32 best = NOBODY;
    i64 weight = 0;
    for (u64 a = start; a < end; a += 32) {
        const u64 edge = a + lane;
        const u32 mine = edge < end ? cluster_of(edge) : NOBODY;
        i64 sum = sum_of(graph, start, end, mine, lane, cluster_of);
        double gain = -1.0 / 0.0;
        if (mine != NOBODY) {
            const i64 total = totals[mine];
            const bool open = __ll2double_rn(outside[mine]) >= product(null, total, all - total);
            if (open) gain = __dsub_rn(__ll2double_rn(sum), product(null, strength, total));
        }
        const u32 from = largest(gain, lane);
        const u32 theirs = __shfl_sync(ALL, mine, from);
        sum = __shfl_sync(ALL, sum, from);
        if (gain >= 0 && gain > most) {
            most = gain;
            best = theirs;
            weight = sum;
        }
    }
    if (lane == 0 && best != NOBODY) {
        to[v] = best;
        there[v] = weight;
        stamps[v] = stamp;
        // Later stamps come first.
        atomicMin(&claims[best], (u64)~stamp << 32 | v);
    }
}

// Joins those that want to, need not wait and have claimed their cluster; the others are asked again.
extern "C" __global__ void __launch_bounds__(32 * WARPS) join(const u64* indptr, const u32* indices, const u32* slice, u32 first, u32 count,
                                                              const i64* strengths, u32* cluster, u32* sizes, i64* totals,
                                                              const i64* inside, i64* outside, u32 stamp, u8* pending, const u32* to,
                                                              const i64* there, const u32* stamps, const u64* claims, u64* changes) {
    const u32 lane = threadIdx.x % 32, at = blockIdx.x * WARPS + threadIdx.x / 32;
    if (at >= count) return;
    const u32 v = slice[first + at];
    if (stamps[v] != stamp) return;
    const Graph graph = {indptr, indices, nullptr, 0};
    const u32 target = to[v];
    const bool later = waits(graph, v, lane, stamps, stamp) || (u32)claims[target] != v;
    if (lane != 0) return;
    if (later) {
        pending[v] = 1;
        return;
    }
    // Nobody else touches these two clusters at the same time.
    sizes[v] = 0;
    sizes[target] += 1;
    totals[target] += strengths[v];
    outside[target] += inside[v] - 2 * there[v];
    cluster[v] = target;
    atomicAdd(changes, 1ull);
}
