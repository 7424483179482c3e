// Sums of each column in 64-bit fixed point: integer addition, so any order of the atomics gives the same bits. One warp a row.

typedef unsigned long long u64;

constexpr unsigned BEYOND = 32;  // a value beyond the bound

// sums[2 j] += y 2^scale, sums[2 j + 1] += y^2 2^square_scale (or 1 where x is not zero, with COUNT).
template <bool COUNT>
__device__ void add_rows(const unsigned* starts, const unsigned* ends, const unsigned* columns, const float* values, unsigned n_rows,
                         const double* total, double target, double per, unsigned mode, const unsigned char* keep, double bound,
                         int scale, int square_scale, u64* sums, unsigned* maxima, unsigned* found) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7) || (keep && !keep[row])) return;
    const unsigned start = starts[row], end = ends[row];
    const Table table(lane, total[row], target, per, mode);
    const double unit = scalbn(1.0, scale), square_unit = scalbn(1.0, square_scale);
    bool beyond = false;
    for (unsigned first = start; first < end; first += 32) {
        const unsigned k = first + lane;
        const float x = k < end ? values[k] : 0;
        const float y = table.of(x);
        if (k < end) {
            const unsigned column = columns[k];
            const double value = y;
            if (fabs(value) <= bound) {
                atomicAdd(&sums[2 * column], (u64)__double2ll_rn(value * unit));
                if (COUNT) {
                    if (x != 0) atomicAdd(&sums[2 * column + 1], 1ull);
                } else {
                    atomicAdd(&sums[2 * column + 1], (u64)__double2ll_rn(value * value * square_unit));
                }
                // Bits of floats that are not negative are ordered as they are.
                if (maxima) {
                    const unsigned bits = __float_as_uint(fabsf(y));
                    if (bits > maxima[column]) atomicMax(&maxima[column], bits);
                }
            } else {
                beyond = true;
            }
        }
    }
    if (__any_sync(0xffffffff, beyond) && lane == 0) atomicOr(found, BEYOND);
}

extern "C" __global__ void __launch_bounds__(256)
moments(const unsigned* starts, const unsigned* ends, const unsigned* columns, const float* values, unsigned n_rows, const double* total,
        double target, double per, unsigned mode, const unsigned char* keep, double bound, int scale, int square_scale, u64* sums,
        unsigned* maxima, unsigned* found) {
    add_rows<false>(starts, ends, columns, values, n_rows, total, target, per, mode, keep, bound, scale, square_scale, sums, maxima, found);
}

extern "C" __global__ void __launch_bounds__(256)
column_totals(const unsigned* starts, const unsigned* ends, const unsigned* columns, const float* values, unsigned n_rows,
              const double* total, double target, double per, unsigned mode, const unsigned char* keep, double bound, int scale,
              int square_scale, u64* sums, unsigned* maxima, unsigned* found) {
    add_rows<true>(starts, ends, columns, values, n_rows, total, target, per, mode, keep, bound, scale, square_scale, sums, maxima, found);
}

// Fixed point to f64; the sums start anew.
extern "C" __global__ void take(u64* sums, unsigned n, int scale, int square_scale, double* out) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[i] = scalbn((double)(long long)sums[i], i % 2 ? -square_scale : -scale);
    sums[i] = 0;
}
