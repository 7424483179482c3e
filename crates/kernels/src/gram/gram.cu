// Rows to columns of signed digits, and exact products back to sums.

typedef unsigned long long u64;
typedef signed char i8;

constexpr unsigned BEYOND = 32;  // a value beyond its column's bound

// q = round(x 2^shift) = d1 2^16 + d2 2^8 + d3 with digits in -128..=127. Digit plane s is (k, n_pad), column by column: the rows of a
// column lie side by side. Column p is 1 in every row (d1 = 1). One warp a row; planes are zero at first. `alarm`: flags, and in its
// third and fourth word the entries so far.
extern "C" __global__ void __launch_bounds__(256) digits(const unsigned* starts, const unsigned* ends, const unsigned* columns,
                                                         const float* values, unsigned n_rows, unsigned first_row, unsigned k,
                                                         unsigned n_pad, unsigned p, const int* shifts, i8* planes,
                                                         const unsigned* found, unsigned* alarm) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows) return;
    if (found[0] & 39) {
        if (lane == 0) atomicOr(alarm, found[0]);
        return;
    }
    const u64 plane = (u64)k * n_pad;
    const unsigned at_row = first_row + row;
    if (lane == 0) {
        planes[(u64)p * k + at_row] = 1;
        atomicAdd((u64*)(alarm + 2), (u64)(ends[row] - starts[row]));
    }
    bool beyond = false;
    for (unsigned e = starts[row] + lane; e < ends[row]; e += 32) {
        const unsigned j = columns[e];
        int q = __double2int_rn(scalbn((double)values[e], shifts[j]));
        if (abs(q) > 0x7f7f7f) {
            beyond = true;
            q = 0;
        }
        const i8 d3 = (i8)(q & 255);
        q = (q - d3) >> 8;
        const i8 d2 = (i8)(q & 255);
        q = (q - d2) >> 8;
        const u64 at = (u64)j * k + at_row;
        planes[at] = (i8)q;
        planes[at + plane] = d2;
        planes[at + 2 * plane] = d3;
    }
    if (__any_sync(0xffffffff, beyond) && lane == 0) atomicOr(alarm, BEYOND);
}

// totals[i, j] += 2^24 D11 + 2^16 (D12 + D12') + 2^8 (D13 + D13' + D22) + (D23 + D23') for i <= j, all (n, n) column by column;
// D11 and D22 are filled in for i <= j. A block of 32 x 8 threads a tile of 32 x 32.
extern "C" __global__ void __launch_bounds__(256) fold(const int* d11, const int* d12, const int* d13, const int* d22, const int* d23,
                                                       unsigned n, long long* totals) {
    __shared__ long long turned[32][33];
    const unsigned x = threadIdx.x % 32, y = threadIdx.x / 32;
    const unsigned i0 = blockIdx.x * 32, j0 = blockIdx.y * 32;
    if (i0 > j0) return;
    // The tile below the diagonal, to be turned over.
    for (unsigned r = y; r < 32; r += 8) {
        const unsigned i = j0 + x, j = i0 + r;
        const u64 at = (u64)j * n + i;
        const bool inside = i < n && j < n;
        turned[r][x] = inside ? ((long long)d12[at] << 16) + ((long long)d13[at] << 8) + d23[at] : 0;
    }
    __syncthreads();
    for (unsigned r = y; r < 32; r += 8) {
        const unsigned i = i0 + x, j = j0 + r;
        if (i < n && j < n && i <= j) {
            const u64 at = (u64)j * n + i;
            totals[at] += ((long long)d11[at] << 24) + ((long long)d12[at] << 16) + (((long long)d13[at] + d22[at]) << 8) + d23[at] + turned[x][r];
        }
    }
}

// Covariance, ddof 1, of the first p columns: (sum xy - (sum x)(sum y) / n) / (n - 1), Chan, Golub & LeVeque 1983. Column p holds the
// sums. Symmetric to the bit.
extern "C" __global__ void __launch_bounds__(256) covariance(const long long* totals, unsigned n, unsigned p, const int* shifts,
                                                             double n_rows, double* out) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, j = blockIdx.y;
    if (i >= p) return;
    const unsigned a = min(i, j), b = max(i, j);
    const double sum_a = scalbn((double)totals[(u64)p * n + a], -8), sum_b = scalbn((double)totals[(u64)p * n + b], -8);
    const double product = scalbn((double)totals[(u64)b * n + a], 8);
    const double centred = (product - sum_a * sum_b / n_rows) / (n_rows - 1);
    out[(u64)j * p + i] = scalbn(centred, -(shifts[a] + shifts[b]));
}

// Sum of each of the first p columns.
extern "C" __global__ void sums(const long long* totals, unsigned n, unsigned p, const int* shifts, double* out) {
    const unsigned j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < p) out[j] = scalbn((double)totals[(u64)p * n + j], -8 - shifts[j]);
}

// Adds n of another device's totals to those from `at` on.
extern "C" __global__ void __launch_bounds__(256) add(const long long* from, unsigned n, u64 at, long long* totals) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) totals[at + i] += from[i];
}
