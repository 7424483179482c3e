// One step of the Chebyshev filter of spectral.rs, with its bits: the same operations in the same order, each rounded once. Eight threads
// a row, one a column of the basis.

constexpr unsigned WIDTH = 8;

// into = factor ((P x) - centre x) - keep y, where P is the random walk on the graph. `stay`: see `Walk`, or null.
extern "C" __global__ void __launch_bounds__(256) filter(const unsigned long long* indptr, const unsigned* indices, const float* weights,
                                                         float least, const float* degrees, const float* stay, unsigned n, float centre,
                                                         float factor, float keep, const float* x, const float* y, float* into) {
    const unsigned i = blockIdx.x * 32 + threadIdx.x / WIDTH, c = threadIdx.x % WIDTH;
    if (i >= n) return;
    float sum = 0;
    for (unsigned long long e = indptr[i]; e < indptr[i + 1]; e++) {
        const float weight = weights[e];
        const float w = weight >= least ? weight : 0;
        sum = __fadd_rn(sum, __fmul_rn(w, x[(size_t)indices[e] * WIDTH + c]));
    }
    const size_t at = (size_t)i * WIDTH + c;
    const float own = x[at], inverse = __fdiv_rn(1.0f, degrees[i]);
    const float product = __fadd_rn(__fmul_rn(sum, inverse), __fmul_rn(stay ? stay[i] : 0.0f, own));
    into[at] = __fsub_rn(__fmul_rn(factor, __fsub_rn(product, __fmul_rn(centre, own))), __fmul_rn(keep, y[at]));
}
