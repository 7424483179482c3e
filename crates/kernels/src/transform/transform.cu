// Values of rows, in place: one warp a row.

extern "C" __global__ void __launch_bounds__(256) transform(const unsigned* starts, const unsigned* ends, float* values, unsigned n_rows,
                                                            const double* total, double target, double per, unsigned mode,
                                                            const unsigned* found) {
    const unsigned lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7)) return;
    const unsigned start = starts[row], end = ends[row];
    const Table table(lane, total[row], target, per, mode);
    for (unsigned first = start; first < end; first += 32) {
        const unsigned k = first + lane;
        const float y = table.of(k < end ? values[k] : 0);
        if (k < end) values[k] = y;
    }
}

// min(x / std, clip) of each entry. `inverse_std`: one a column.
extern "C" __global__ void __launch_bounds__(256) scale_columns(const unsigned* starts, const unsigned* ends, const unsigned* columns,
                                                                float* values, unsigned n_rows, const double* inverse_std, double clip,
                                                                const unsigned* found) {
    const unsigned row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n_rows || (found[0] & 7)) return;
    for (unsigned k = starts[row] + threadIdx.x % 32; k < ends[row]; k += 32) {
        values[k] = (float)fmin((double)values[k] * inverse_std[columns[k]], clip);
    }
}
