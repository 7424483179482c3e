// One value through normalisation and logarithm, with the roundings of transform/cpu.rs.

constexpr unsigned NORMALIZE = 1, LOG = 2;

__device__ float transformed(float value, double factor, double per, unsigned mode) {
    double y = (double)value;
    if (mode & NORMALIZE) y = (double)(float)(y * factor);
    if (mode & LOG) y = log1p(y) * per;
    return (float)y;
}

// Small counts are so common that each lane takes the logarithm of its own number once a row; the others ask it.
struct Table {
    float own;
    double factor, per;
    unsigned mode;
    __device__ Table(unsigned lane, double total, double target, double per, unsigned mode)
        : factor(total == 0 ? 1 : target / total), per(per), mode(mode) {
        own = transformed((float)lane, factor, per, mode);
    }
    // To be called by all 32 lanes.
    __device__ float of(float value) const {
        const int k = (int)value;
        const bool known = k >= 0 && k < 32 && (float)k == value;
        const float looked_up = __shfl_sync(0xffffffff, own, k & 31);
        return known ? looked_up : transformed(value, factor, per, mode);
    }
};
