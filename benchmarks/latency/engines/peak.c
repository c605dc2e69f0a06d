/* Fused multiply-adds on registers alone: what the core's arithmetic units give at most. */
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define ACCUMULATORS 12 /* more than latency x units of any core; with their two factors they fit 16 registers */

typedef float vector __attribute__((vector_size(BYTES)));

long macs_per_step(void) { return ACCUMULATORS * (BYTES / sizeof(float)); }

/* Each accumulator converges to `addend / (1 - factor)`, so that no number grows or becomes denormal. */
void multiply_add(float *result, float factor, float addend, long steps) {
    vector sums[ACCUMULATORS], factors = (vector){0} + factor, addends = (vector){0} + addend;
    for (int i = 0; i < ACCUMULATORS; i++) sums[i] = addends * (float)i;
    for (long step = 0; step < steps; step++)
#pragma clang loop unroll(full)
        for (int i = 0; i < ACCUMULATORS; i++) sums[i] = sums[i] * factors + addends;
    for (int i = 0; i < ACCUMULATORS; i++) result[i] = sums[i][0];
}
