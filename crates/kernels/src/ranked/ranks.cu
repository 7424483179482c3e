// Rank sums of each column over groups of rows, in integers: any order of the atomics gives the same bits.
//
// The entries of a part of the rows are laid column by column; runs of columns are then gathered from all parts and sorted: a word is the
// column (16 bits), the bits of a value that is above zero (32), and a group (16).

typedef unsigned long long u64;

constexpr unsigned NONE = 0xffffffff;
constexpr unsigned ITEMS = 16, THREADS = 256, TILE = ITEMS * THREADS, BINS = 256, WARPS = THREADS / 32;
constexpr unsigned RANKED = 2048;  // words of a block of `sum_ranks`

// Rows, and what is done to their values: the arguments that two kernels share.
#define ROWS const unsigned *starts, const unsigned *ends, const unsigned *columns, const float *values, unsigned n_rows, const double *total, \
             double target, double per, unsigned mode, const unsigned *groups, unsigned n_groups, const unsigned *map, const unsigned *found, \
             unsigned *negative

// Calls `then(column, bits, group)` for each kept entry above zero, after normalisation and logarithm. One warp a row.
template <typename F>
__device__ void each(ROWS, F then) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * WARPS + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7) || groups[row] >= n_groups) return;
    const unsigned group = groups[row], end = ends[row];
    const Table table(lane, total[row], target, per, mode);
    for (unsigned first = starts[row]; first < end; first += 32) {
        const unsigned k = first + lane;
        const float y = table.of(k < end ? values[k] : 0);
        const unsigned column = k >= end ? NONE : map ? map[columns[k]] : columns[k];
        if (column == NONE || y == 0) continue;
        if (y > 0) {
            then(column, __float_as_uint(y), group);
        } else {
            atomicOr(negative, 1);
        }
    }
}

// Entries of each column.
extern "C" __global__ void __launch_bounds__(THREADS) count_columns(ROWS, unsigned* counts) {
    each(starts, ends, columns, values, n_rows, total, target, per, mode, groups, n_groups, map, found, negative,
         [&](unsigned column, unsigned, unsigned) { atomicAdd(&counts[column], 1); });
}

// Sums of all numbers before each of a block's; `sums` has a place for each warp, `all` gets the sum of all.
__device__ unsigned before(unsigned number, unsigned* sums, unsigned& all) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    unsigned upto = number;
    for (unsigned apart = 1; apart < 32; apart *= 2) {
        const unsigned other = __shfl_up_sync(0xffffffff, upto, apart);
        if (lane >= apart) upto += other;
    }
    __syncthreads();
    if (lane == 31) sums[warp] = upto;
    __syncthreads();
    unsigned first = 0;
    all = 0;
    for (unsigned w = 0; w < n_warps; w++) {
        if (w < warp) first += sums[w];
        all += sums[w];
    }
    return first + upto - number;
}

// Where each of n columns begins, and the end: (n + 1,), twice. One block.
extern "C" __global__ void __launch_bounds__(1024) scan_columns(const unsigned* counts, unsigned n, unsigned* starts, unsigned* cursors) {
    __shared__ unsigned sums[32];
    unsigned done = 0;
    for (unsigned first = 0; first < n; first += 1024) {
        const unsigned j = first + threadIdx.x;
        unsigned all;
        const unsigned at = done + before(j < n ? counts[j] : 0, sums, all);
        if (j < n) starts[j] = cursors[j] = at;
        done += all;
    }
    if (threadIdx.x == 0) starts[n] = done;
}

// Lays entries column by column, in any order within a column. `cursors`: where the next of each column goes.
extern "C" __global__ void __launch_bounds__(THREADS) lay_columns(ROWS, unsigned* cursors, unsigned* to_values, unsigned short* to_groups) {
    each(starts, ends, columns, values, n_rows, total, target, per, mode, groups, n_groups, map, found, negative,
         [&](unsigned column, unsigned bits, unsigned group) {
             const unsigned at = atomicAdd(&cursors[column], 1);
             to_values[at] = bits;
             to_groups[at] = (unsigned short)group;
         });
}

// Words of the columns first .. first + n_columns of all parts. One warp a column of a part. `starts_at`, `values_at`, `groups_at`: addresses
// of the parts' arrays; `to`: (n_parts, width), where the words of each column of each part go.
extern "C" __global__ void __launch_bounds__(THREADS)
gather(const u64* starts_at, const u64* values_at, const u64* groups_at, const unsigned* to, unsigned n_parts, unsigned width,
       unsigned first, unsigned n_columns, u64* words) {
    const unsigned lane = threadIdx.x % 32;
    const u64 warp = (u64)blockIdx.x * WARPS + threadIdx.x / 32;
    if (warp >= (u64)n_parts * n_columns) return;
    const unsigned part = warp / n_columns, own = warp % n_columns, column = first + own;
    const unsigned* starts = (const unsigned*)starts_at[part];
    const unsigned* values = (const unsigned*)values_at[part];
    const unsigned short* groups = (const unsigned short*)groups_at[part];
    const unsigned start = starts[column], len = starts[column + 1] - start, place = to[(u64)part * width + column];
    for (unsigned i = lane; i < len; i += 32) {
        words[place + i] = (u64)own << 48 | (u64)values[start + i] << 16 | groups[start + i];
    }
}

__device__ unsigned digit(u64 word, unsigned shift) { return (unsigned)(word >> shift) & (BINS - 1); }

// How often each digit occurs in each tile: (BINS, n_tiles).
extern "C" __global__ void __launch_bounds__(THREADS) count_digits(const u64* words, unsigned n, unsigned shift, unsigned n_tiles,
                                                                   unsigned* counts) {
    __shared__ unsigned own[BINS];
    own[threadIdx.x] = 0;
    __syncthreads();
    for (unsigned i = 0; i < ITEMS; i++) {
        const unsigned at = blockIdx.x * TILE + i * THREADS + threadIdx.x;
        if (at < n) atomicAdd(&own[digit(words[at], shift)], 1);
    }
    __syncthreads();
    counts[(u64)threadIdx.x * n_tiles + blockIdx.x] = own[threadIdx.x];
}

// Of each digit, how often it occurs in the tiles before each, and in all. One block a digit.
extern "C" __global__ void __launch_bounds__(1024) scan_digits(unsigned* counts, unsigned n_tiles, unsigned* totals) {
    __shared__ unsigned sums[32];
    unsigned* row = counts + (u64)blockIdx.x * n_tiles;
    unsigned done = 0;
    for (unsigned first = 0; first < n_tiles; first += 1024) {
        const unsigned j = first + threadIdx.x;
        unsigned all;
        const unsigned at = done + before(j < n_tiles ? row[j] : 0, sums, all);
        if (j < n_tiles) row[j] = at;
        done += all;
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = done;
}

// Moves words to where their digit puts them; words of one digit stay in their order. A block sorts its tile first, so that neighbours are
// written side by side.
extern "C" __global__ void __launch_bounds__(THREADS) move_words(const u64* words, unsigned n, unsigned shift, unsigned n_tiles,
                                                                 const unsigned* counts, const unsigned* totals, u64* to) {
    __shared__ u64 sorted[TILE];
    __shared__ unsigned seen[WARPS][BINS];
    __shared__ unsigned begins[BINS], places[BINS], sums[WARPS];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32, bin = threadIdx.x;
    for (unsigned w = 0; w < WARPS; w++) seen[w][bin] = 0;
    unsigned all;
    const unsigned smaller = before(totals[bin], sums, all);
    __syncthreads();
    u64 own[ITEMS];
    unsigned rank[ITEMS];
    for (unsigned i = 0; i < ITEMS; i++) {
        const unsigned at = blockIdx.x * TILE + warp * (32 * ITEMS) + i * 32 + lane;
        own[i] = at < n ? words[at] : 0;
        const unsigned d = at < n ? digit(own[i], shift) : BINS;
        const unsigned peers = __match_any_sync(0xffffffff, d), leader = __ffs(peers) - 1;
        unsigned old = 0;
        if (lane == leader && d < BINS) {
            old = seen[warp][d];
            seen[warp][d] = old + __popc(peers);
        }
        rank[i] = __shfl_sync(0xffffffff, old, leader) + __popc(peers & ((1u << lane) - 1));
        __syncwarp();
    }
    __syncthreads();
    unsigned in_tile = 0;
    for (unsigned w = 0; w < WARPS; w++) {
        const unsigned count = seen[w][bin];
        seen[w][bin] = in_tile;
        in_tile += count;
    }
    begins[bin] = before(in_tile, sums, all);
    places[bin] = smaller + counts[(u64)bin * n_tiles + blockIdx.x];
    __syncthreads();
    for (unsigned i = 0; i < ITEMS; i++) {
        const unsigned at = blockIdx.x * TILE + warp * (32 * ITEMS) + i * 32 + lane;
        if (at >= n) continue;
        const unsigned d = digit(own[i], shift);
        sorted[begins[d] + seen[warp][d] + rank[i]] = own[i];
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < all; i += THREADS) {
        const u64 word = sorted[i];
        const unsigned d = digit(word, shift);
        to[places[d] + (i - begins[d])] = word;
    }
}

// The first of the words that equal the one at `at` but for the group, not before `start`.
__device__ unsigned first_of(const u64* words, unsigned at, unsigned start) {
    const u64 like = words[at] >> 16;
    unsigned step = 1;
    while (at >= start + step && words[at - step] >> 16 == like) {
        at -= step;
        step *= 2;
    }
    for (step /= 2; step > 0; step /= 2) {
        if (at >= start + step && words[at - step] >> 16 == like) at -= step;
    }
    return at;
}

// The end of them, not beyond `end`.
__device__ unsigned end_of(const u64* words, unsigned at, unsigned end) {
    const u64 like = words[at] >> 16;
    unsigned step = 1;
    while (at + step < end && words[at + step] >> 16 == like) {
        at += step;
        step *= 2;
    }
    for (step /= 2; step > 0; step /= 2) {
        if (at + step < end && words[at + step] >> 16 == like) at += step;
    }
    return at + 1;
}

// Of sorted words: twice[column n_groups + group] += twice their ranks among n_cells cells, of which those without a word are zeros and
// come first; ties[column] += t^3 - t over runs of t equal values. Column `first` is the words' 0; `places` and `lens` say where the words
// of each column lie. At most 2^21 cells.
extern "C" __global__ void __launch_bounds__(THREADS) sum_ranks(const u64* words, unsigned n, unsigned first, const unsigned* places,
                                                                const unsigned* lens, unsigned n_groups, u64 n_cells, u64* twice,
                                                                u64* ties) {
    // Of each group: low halves of ranks; how many they are, and above the low halves.
    extern __shared__ unsigned sums[];
    const unsigned from = blockIdx.x * RANKED, to = min(from + RANKED, n);
    for (unsigned g = threadIdx.x; g < 2 * n_groups; g += THREADS) sums[g] = 0;
    __syncthreads();
    const unsigned last = (unsigned)(words[to - 1] >> 48);
    for (unsigned own = (unsigned)(words[from] >> 48); own <= last; own++) {
        const unsigned column = first + own, start = places[column], end = start + lens[column];
        for (unsigned at = max(from, start) + threadIdx.x; at < min(to, end); at += THREADS) {
            const unsigned a = first_of(words, at, start), b = end_of(words, at, end);
            const unsigned rank = (a - start) + (b - start), group = (unsigned)words[at] & 0xffff;
            atomicAdd(&sums[2 * group], rank & 0xffff);
            atomicAdd(&sums[2 * group + 1], (1u << 20) | rank >> 16);
            const u64 t = b - a;
            if (a == at && t > 1) atomicAdd(&ties[column], t * t * t - t);
        }
        __syncthreads();
        const u64 more = 2 * (n_cells - lens[column]) + 1;
        for (unsigned g = threadIdx.x; g < n_groups; g += THREADS) {
            const unsigned low = sums[2 * g], high = sums[2 * g + 1];
            if (high == 0) continue;
            const u64 count = high >> 20;
            atomicAdd(&twice[(u64)column * n_groups + g], low + ((u64)(high & 0xfffff) << 16) + count * more);
            sums[2 * g] = sums[2 * g + 1] = 0;
        }
        __syncthreads();
    }
}
