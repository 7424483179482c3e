// Scores of sparse rows, with the bits of project/mod.rs: one fused multiply-add an entry in f32, in the order of the entries, then the
// offset in f64. One warp a row; lane l holds the components l, l + 32, ... of a panel of 128. `alarm` gets the flags of damaged rows.

extern "C" __global__ void __launch_bounds__(256) scores(const unsigned* starts, const unsigned* ends, const unsigned* columns,
                                                         const float* values, unsigned n_rows, const float* weights, unsigned k,
                                                         unsigned stride, const double* offset, float* out, const unsigned* found,
                                                         unsigned* alarm) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows) return;
    if (found[0] & 7) {
        if (lane == 0) atomicOr(alarm, found[0]);
        return;
    }
    const unsigned start = starts[row], end = ends[row];
    for (unsigned panel = 0; panel < k; panel += 128) {
        // The stride is a multiple of 32, filled up with zeros.
        const unsigned parts = min(4u, (stride - panel) / 32);
        float sum[4] = {0, 0, 0, 0};
        for (unsigned first = start; first < end; first += 32) {
            const unsigned mine = first + lane;
            const unsigned column = mine < end ? columns[mine] : 0;
            const float value = mine < end ? values[mine] : 0;
            const unsigned n = min(32u, end - first);
#pragma unroll 4
            for (unsigned e = 0; e < n; e++) {
                const unsigned c = __shfl_sync(0xffffffff, column, e);
                const float v = __shfl_sync(0xffffffff, value, e);
                const float* w = weights + (size_t)c * stride + panel + lane;
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    if (i < parts) sum[i] = __fmaf_rn(v, __ldg(w + 32 * i), sum[i]);
                }
            }
        }
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            const unsigned c = panel + 32 * i + lane;
            if (c < k) out[(size_t)row * k + c] = (float)__dadd_rn((double)sum[i], offset[c]);
        }
    }
}
