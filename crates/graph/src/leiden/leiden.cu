// Local moving and refinement of one level, slice by slice: what twin.rs says. A warp a vertex, or TEAM warps where its row is long. WEIGHT
// is defined before this text: float or double. Sums of weights are whole numbers of `1 / scale`, so that their order does not matter.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
typedef unsigned char u8;

constexpr u32 ALL = 0xffffffff;
constexpr u32 NOBODY = 0xffffffff;
constexpr u32 WARPS = 4;
constexpr u32 TEAM = 8;
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

// What the warps of a vertex have found: the best value, whose key, at which edge it was found first, and the sum there.
struct Best {
    double value;
    u64 edge;
    u32 key;
    i64 sum;
    __device__ void take(const Best& other) {
        if (other.value > value || (other.value == value && other.edge < edge)) *this = other;
    }
};

// The best of all warps of a team, for all of its threads.
template <u32 WIDE>
__device__ Best together(Best best) {
    if (WIDE == 1) return best;
    __shared__ Best all[WIDE];
    if (threadIdx.x % 32 == 0) all[threadIdx.x / 32] = best;
    __syncthreads();
    for (u32 w = 0; w < WIDE; w++) best.take(all[w]);
    return best;
}

// Whether a pending vertex of a slice is asked by these threads; it is no longer pending then.
template <u32 WIDE>
__device__ bool asked(const u32* slice, u32 first, u32 count, u8* pending, u32& v) {
    const u32 at = WIDE == 1 ? blockIdx.x * WARPS + threadIdx.x / 32 : blockIdx.x;
    if (at >= count) return false;
    v = slice[first + at];
    const bool yes = pending[v] != 0;
    if (WIDE == 1) __syncwarp();
    else __syncthreads();
    if (threadIdx.x % 32 == 0) pending[v] = 0;
    return yes;
}

// Where each pending vertex of a slice wants to go: the community that gains most, or one of its own. `null` is resolution / 2m, both in
// whole numbers.
template <u32 WIDE>
__device__ void want_some(const Graph& graph, const u32* slice, u32 first, u32 count, const i64* strengths, const u32* membership,
                          const i64* totals, const u32* sizes, double null, u32 stamp, u8* pending, u32* to, u32* stamps) {
    u32 v;
    if (!asked<WIDE>(slice, first, count, pending, v)) return;
    const u32 lane = threadIdx.x % 32, rank = WIDE == 1 ? 0 : threadIdx.x / 32;
    const u64 start = graph.indptr[v], end = graph.indptr[v + 1];
    const u32 own = membership[v];
    const i64 strength = strengths[v];
    auto community = [&](u64 edge) { return membership[graph.indices[edge]]; };
    // Edges to its own community are found by whichever warp meets the first.
    Best here = {-1.0 / 0.0, ~0ull, own, 0}, best = here;
    for (u64 a = start + 32 * rank; a < end; a += 32 * WIDE) {
        const u64 edge = a + lane;
        const u32 mine = edge < end ? community(edge) : NOBODY;
        const i64 sum = sum_of(graph, start, end, mine, lane, community);
        const u32 inner = __ballot_sync(ALL, mine == own);
        if (inner) here = {0, 0, own, __shfl_sync(ALL, sum, __ffs(inner) - 1)};
        double value = -1.0 / 0.0;
        if (mine != own && mine != NOBODY) value = __dsub_rn(__ll2double_rn(sum), product(null, strength, totals[mine]));
        const u32 from = largest(value, lane);
        best.take({value, a + from, __shfl_sync(ALL, mine, from), 0});
    }
    if (WIDE > 1) {
        here = together<WIDE>(here);
        __syncthreads();
        best = together<WIDE>(best);
    }
    const double stay = __dsub_rn(__ll2double_rn(here.sum), product(null, strength, totals[own] - strength));
    double value = __dadd_rn(stay, __dmul_rn(NOISE, __ll2double_rn(strength)));
    u32 target = own;
    if (best.value > value) {
        value = best.value;
        target = best.key;
    }
    // A community that is called after the vertex and is empty.
    if (value < 0 && sizes[own] > 1 && sizes[v] == 0) target = v;
    if (lane == 0 && rank == 0 && target != own) {
        to[v] = target;
        stamps[v] = stamp;
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) want(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                              const u32* slice, u32 first, u32 count, const i64* strengths,
                                                              const u32* membership, const i64* totals, const u32* sizes, double null,
                                                              u32 stamp, u8* pending, u32* to, u32* stamps) {
    want_some<1>({indptr, indices, weights, scale}, slice, first, count, strengths, membership, totals, sizes, null, stamp, pending, to,
                 stamps);
}

extern "C" __global__ void __launch_bounds__(32 * TEAM) want_long(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                                  const u32* slice, u32 first, u32 count, const i64* strengths,
                                                                  const u32* membership, const i64* totals, const u32* sizes, double null,
                                                                  u32 stamp, u8* pending, u32* to, u32* stamps) {
    want_some<TEAM>({indptr, indices, weights, scale}, slice, first, count, strengths, membership, totals, sizes, null, stamp, pending, to,
                    stamps);
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
template <u32 WIDE>
__device__ void choose_some(const Graph& graph, const u32* slice, u32 first, u32 count, const i64* strengths, const u32* membership,
                            const i64* community_totals, double null, const u32* cluster, const u32* sizes, const i64* totals,
                            const i64* outside, u32 stamp, u8* pending, u32* to, i64* there, u32* stamps, u64* claims) {
    u32 v;
    if (!asked<WIDE>(slice, first, count, pending, v)) return;
    if (cluster[v] != v || sizes[v] != 1) return;
    const u32 lane = threadIdx.x % 32, rank = WIDE == 1 ? 0 : threadIdx.x / 32;
    const u64 start = graph.indptr[v], end = graph.indptr[v + 1];
    const u32 own = membership[v];
    const i64 strength = strengths[v], all = community_totals[own];
    auto cluster_of = [&](u64 edge) {
        const u32 u = graph.indices[edge];
        return membership[u] == own ? cluster[u] : NOBODY;
    };
    Best best = {-1.0 / 0.0, ~0ull, NOBODY, 0};
    for (u64 a = start + 32 * rank; a < end; a += 32 * WIDE) {
        const u64 edge = a + lane;
        const u32 mine = edge < end ? cluster_of(edge) : NOBODY;
        const i64 sum = sum_of(graph, start, end, mine, lane, cluster_of);
        double gain = -1.0 / 0.0;
        if (mine != NOBODY) {
            const i64 total = totals[mine];
            const bool open = __ll2double_rn(outside[mine]) >= product(null, total, all - total);
            if (open) gain = __dsub_rn(__ll2double_rn(sum), product(null, strength, total));
        }
        const u32 from = largest(gain, lane);
        best.take({gain, a + from, __shfl_sync(ALL, mine, from), __shfl_sync(ALL, sum, from)});
    }
    best = together<WIDE>(best);
    if (lane == 0 && rank == 0 && best.value >= 0) {
        to[v] = best.key;
        there[v] = best.sum;
        stamps[v] = stamp;
        // Later stamps come first.
        atomicMin(&claims[best.key], (u64)~stamp << 32 | v);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) choose(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                                const u32* slice, u32 first, u32 count, const i64* strengths,
                                                                const u32* membership, const i64* community_totals, double null,
                                                                const u32* cluster, const u32* sizes, const i64* totals,
                                                                const i64* outside, u32 stamp, u8* pending, u32* to, i64* there,
                                                                u32* stamps, u64* claims) {
    choose_some<1>({indptr, indices, weights, scale}, slice, first, count, strengths, membership, community_totals, null, cluster, sizes,
                   totals, outside, stamp, pending, to, there, stamps, claims);
}

extern "C" __global__ void __launch_bounds__(32 * TEAM) choose_long(const u64* indptr, const u32* indices, const WEIGHT* weights, double scale,
                                                                    const u32* slice, u32 first, u32 count, const i64* strengths,
                                                                    const u32* membership, const i64* community_totals, double null,
                                                                    const u32* cluster, const u32* sizes, const i64* totals,
                                                                    const i64* outside, u32 stamp, u8* pending, u32* to, i64* there,
                                                                    u32* stamps, u64* claims) {
    choose_some<TEAM>({indptr, indices, weights, scale}, slice, first, count, strengths, membership, community_totals, null, cluster, sizes,
                      totals, outside, stamp, pending, to, there, stamps, claims);
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
