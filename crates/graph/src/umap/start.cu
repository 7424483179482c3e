// What a start from eigenvectors asks of the graph beside products: its parts, and the groups of coarsen.rs. A thread a cell. Edges below
// `least` do not count.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned char u8;

constexpr u8 OPEN = 0, CENTRE = 1, COVERED = 2;
constexpr u64 CENTRES = 7;

// The smallest cell known of a cell's part. Others write at the same time, smaller cells alone.
__device__ u32 root(volatile u32* parent, u32 i) {
    u32 above = parent[i];
    while (above != i) {
        const u32 next = parent[above];
        if (next != above) parent[i] = next;
        i = above;
        above = next;
    }
    return i;
}

// Joins the parts of an edge's ends: the larger root goes under the smaller one, so that a part is called after its first cell in the end
// (Jaiganesh and Burtscher 2018).
extern "C" __global__ void unite(const u64* indptr, const u32* indices, const float* weights, float least, u32 n, u32* parent) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    for (u64 e = indptr[i]; e < indptr[i + 1]; e++) {
        const u32 j = indices[e];
        if (j <= i || weights[e] < least) continue;
        while (true) {
            const u32 a = root(parent, i), b = root(parent, j);
            if (a == b) break;
            const u32 high = a > b ? a : b, low = a > b ? b : a;
            if (atomicCAS(&parent[high], high, low) == high) break;
        }
    }
}

// Nothing is shortened here: a way that another thread has found may be older than the root that was written.
extern "C" __global__ void name(u32 n, u32* parent) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    volatile u32* above = parent;
    u32 first = i;
    while (above[first] != first) first = above[first];
    parent[i] = first;
}

// Whether cell j comes before cell i in the choice of centres.
__device__ bool before(u64 seed, u32 j, u32 i) {
    const u32 a = (u32)(random_bits(seed, CENTRES, j, 0) >> 32), b = (u32)(random_bits(seed, CENTRES, i, 0) >> 32);
    return a < b || (a == b && j < i);
}

// A cell whose open neighbours all come before it becomes a centre.
extern "C" __global__ void centre(const u64* indptr, const u32* indices, const float* weights, float least, u32 n, u64 seed, const u8* state,
                                  u8* chosen) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u8 own = state[i];
    if (own == OPEN) {
        own = CENTRE;
        for (u64 e = indptr[i]; e < indptr[i + 1] && own == CENTRE; e++) {
            const u32 j = indices[e];
            if (weights[e] >= least && state[j] == OPEN && !before(seed, j, i)) own = OPEN;
        }
    }
    chosen[i] = own;
}

// Neighbours of centres are covered. `open` is set where a cell stays open.
extern "C" __global__ void cover(const u64* indptr, const u32* indices, const float* weights, float least, u32 n, const u8* chosen, u8* state,
                                 u32* open) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u8 own = chosen[i];
    if (own == OPEN) {
        for (u64 e = indptr[i]; e < indptr[i + 1] && own == OPEN; e++) {
            if (weights[e] >= least && chosen[indices[e]] == CENTRE) own = COVERED;
        }
        if (own == OPEN) *open = 1;
    }
    state[i] = own;
}

// The centre to which each cell is tied most strongly, the first of equals; a centre itself.
extern "C" __global__ void nearest(const u64* indptr, const u32* indices, const float* weights, float least, u32 n, const u8* state,
                                   u32* to) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u32 best = i;
    float most = 0;
    if (state[i] != CENTRE) {
        for (u64 e = indptr[i]; e < indptr[i + 1]; e++) {
            const u32 j = indices[e];
            if (weights[e] >= least && weights[e] > most && state[j] == CENTRE) {
                best = j;
                most = weights[e];
            }
        }
    }
    to[i] = best;
}
