// The entries of rows side by side, without the gaps that chunks of whole blocks leave: a warp for each row.
//
// starts, ends: (n_rows,), where rows lie in columns and values; places: (n_rows,), where they go.

extern "C" __global__ void compact(const unsigned* starts, const unsigned* ends, const unsigned* columns, const float* values,
                                   const unsigned* places, unsigned n_rows, unsigned* to_columns, float* to_values) {
    unsigned row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (row >= n_rows) return;
    unsigned start = starts[row], len = ends[row] - start, place = places[row];
    for (unsigned i = lane; i < len; i += 32) {
        to_columns[place + i] = columns[start + i];
        to_values[place + i] = values[start + i];
    }
}
