// Sums of each column over groups of rows in 64-bit fixed point: integer addition, so any order of the atomics gives the same bits.
// One warp a row.

typedef unsigned long long u64;

constexpr unsigned BEYOND = 32;  // a value beyond the bound
constexpr unsigned NONE = 0xffffffff;

// The sum of each row's entries in the columns that `map` keeps.
extern "C" __global__ void __launch_bounds__(256) kept_totals(const unsigned* starts, const unsigned* ends, const unsigned* columns,
                                                              const float* values, unsigned n_rows, const unsigned* map, double* total,
                                                              const unsigned* found) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7)) return;
    double sum = 0;
    for (unsigned k = starts[row] + lane; k < ends[row]; k += 32) sum += map[columns[k]] != NONE ? (double)values[k] : 0;
    for (unsigned apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(0xffffffff, sum, apart);
    if (lane == 0) total[row] = sum;
}

// Of each row's group g < n_groups and kept column c: sums[2 (g n_kept + c)] += y 2^scale, sums[2 (g n_kept + c) + 1] += y^2
// 2^square_scale, counts[g n_kept + c] += 1 where y is not zero. `map`: the number of each column among those that are kept; null: all are.
// Values that are left as they are must be whole.
extern "C" __global__ void __launch_bounds__(256)
grouped(const unsigned* starts, const unsigned* ends, const unsigned* columns, const float* values, unsigned n_rows, const double* total,
        double target, double per, unsigned mode, const unsigned* groups, unsigned n_groups, const unsigned* map, unsigned n_kept,
        double bound, int scale, int square_scale, u64* sums, unsigned* counts, const unsigned* found, unsigned* beyond) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7) || groups[row] >= n_groups) return;
    const u64 first_sum = (u64)groups[row] * n_kept;
    const unsigned start = starts[row], end = ends[row];
    const Table table(lane, total[row], target, per, mode);
    const double unit = scalbn(1.0, scale), square_unit = scalbn(1.0, square_scale);
    bool above = false;
    for (unsigned first = start; first < end; first += 32) {
        const unsigned k = first + lane;
        const double y = table.of(k < end ? values[k] : 0);
        const unsigned column = k >= end ? NONE : map ? map[columns[k]] : columns[k];
        if (column == NONE || y == 0) continue;
        if (fabs(y) <= bound && (mode != 0 || y == rint(y))) {
            const u64 at = first_sum + column;
            atomicAdd(&sums[2 * at], (u64)__double2ll_rn(y * unit));
            atomicAdd(&sums[2 * at + 1], (u64)__double2ll_rn(y * y * square_unit));
            atomicAdd(&counts[at], 1);
        } else {
            above = true;
        }
    }
    if (__any_sync(0xffffffff, above) && lane == 0) atomicOr(beyond, BEYOND);
}
