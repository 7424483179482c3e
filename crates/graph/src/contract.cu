// Groups of vertices become vertices; an edge weighs what the edges between two groups weigh together. WEIGHT and SUM are defined before
// this text: the types of weights before and after. Sums are whole numbers of `1 / scale`, so that their order does not matter.
//
// Each group has a table of slots in `keys` and `sums`, from `starts[group]` on: one more than the other group's number, or 0.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

constexpr u32 ALL = 0xffffffff;
constexpr u32 WARPS = 4;

// Edges of each group's vertices.
extern "C" __global__ void measure(const u64* indptr, const u32* groups, u32 n, u32* edges) {
    const u32 v = blockIdx.x * blockDim.x + threadIdx.x;
    if (v < n) atomicAdd(&edges[groups[v]], (u32)(indptr[v + 1] - indptr[v]));
}

// Adds up the edges of at least `least` between different groups. A warp a vertex.
extern "C" __global__ void __launch_bounds__(32 * WARPS) add(const u64* indptr, const u32* indices, const WEIGHT* weights, WEIGHT least,
                                                             double scale, u32 n, const u32* groups, const u64* starts, u32* keys,
                                                             u64* sums) {
    const u32 lane = threadIdx.x % 32, v = blockIdx.x * WARPS + threadIdx.x / 32;
    if (v >= n) return;
    const u32 own = groups[v];
    const u64 start = starts[own], slots = starts[own + 1] - start;
    for (u64 edge = indptr[v] + lane; edge < indptr[v + 1]; edge += 32) {
        const WEIGHT weight = weights[edge];
        const u32 other = groups[indices[edge]];
        if (other == own || weight < least) continue;
        u64 slot = (u64)(other * 0x9e3779b1u) * slots >> 32;
        while (true) {
            const u32 there = atomicCAS(&keys[start + slot], 0, other + 1);
            if (there == 0 || there == other + 1) break;
            slot = slot + 1 < slots ? slot + 1 : 0;
        }
        atomicAdd(&sums[start + slot], (u64)__double2ll_rn(__dmul_rn((double)weight, scale)));
    }
}

// Moves the slots in use of each group to the front, and says how many there are. A warp a group.
extern "C" __global__ void __launch_bounds__(32 * WARPS) squeeze(const u64* starts, u32 n_groups, u32* keys, u64* sums, u32* lengths) {
    const u32 lane = threadIdx.x % 32, group = blockIdx.x * WARPS + threadIdx.x / 32;
    if (group >= n_groups) return;
    u64 free = starts[group];
    for (u64 a = free; a < starts[group + 1]; a += 32) {
        const u64 slot = a + lane;
        const u32 key = slot < starts[group + 1] ? keys[slot] : 0;
        const u64 sum = key != 0 ? sums[slot] : 0;
        const u32 used = __ballot_sync(ALL, key != 0);
        if (key != 0) {
            const u64 to = free + __popc(used & ((1u << lane) - 1));
            keys[to] = key;
            sums[to] = sum;
        }
        free += __popc(used);
        __syncwarp();
    }
    if (lane == 0) lengths[group] = (u32)(free - starts[group]);
}

// Rows of the smaller graph, ascending: each entry goes behind those with smaller numbers. A warp a group.
extern "C" __global__ void __launch_bounds__(32 * WARPS) place(const u64* starts, u32 n_groups, const u32* keys, const u64* sums,
                                                               double scale, const u64* indptr, u32* indices, SUM* weights) {
    const u32 lane = threadIdx.x % 32, group = blockIdx.x * WARPS + threadIdx.x / 32;
    if (group >= n_groups) return;
    const u64 row = indptr[group], start = starts[group], end = start + (indptr[group + 1] - row);
    for (u64 a = start; a < end; a += 32) {
        const u32 mine = a + lane < end ? keys[a + lane] : 0;
        u32 smaller = 0;
        for (u64 b = start; b < end; b += 32) {
            const u32 other = b + lane < end ? keys[b + lane] : ALL;
            for (u32 i = 0; i < 32; i++) smaller += __shfl_sync(ALL, other, i) < mine;
        }
        if (mine == 0) continue;
        indices[row + smaller] = mine - 1;
        weights[row + smaller] = (SUM)__ddiv_rn(__ll2double_rn((i64)sums[a + lane]), scale);
    }
}
