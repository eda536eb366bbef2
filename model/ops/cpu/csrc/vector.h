/* A vector of floats and the functions of it that the kernels need.
 *
 * Lanes are channels. GCC's and clang's vector extensions write the arithmetic; intrinsics appear
 * only where the extensions have no word for an instruction (min, max, permutations).
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef LANES /* a build may ask for other lanes than the CPU has: see the kernel's tests */
#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#endif
#if LANES == 16 && defined(__AVX512F__)
#define AVX512 1
#elif LANES == 8 && defined(__AVX2__)
#define AVX2 1
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float vec_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

#define INLINE static inline __attribute__((always_inline))
#ifndef UNROLL /* sanitizers choke on unrolled code: they are built with -DUNROLL= */
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define LOG2_E 1.4426950408889634f

INLINE vec load(const float *p) { return *(const vec_unaligned *)p; }
INLINE void store(float *p, vec v) { *(vec_unaligned *)p = v; }
/* Adds a sum of a few terms to a long sum. That rounds less than adding each term to the long sum. */
INLINE void add_to(float *p, vec v) { store(p, load(p) + v); }
INLINE vec splat(float x) { return (vec){} + x; }
INLINE vec select_vec(ivec mask, vec a, vec b) {
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

/* The maximum and the minimum of x and a constant; NaN where x is NaN. The instructions return their
 * second operand if either is NaN, so x must be the second. */
INLINE vec max_vec(vec x, vec other) {
#if AVX512
    return (vec)_mm512_max_ps((__m512)other, (__m512)x);
#elif AVX2
    return (vec)_mm256_max_ps((__m256)other, (__m256)x);
#else
    return select_vec(x < other, other, x);
#endif
}
INLINE vec min_vec(vec x, vec other) {
#if AVX512
    return (vec)_mm512_min_ps((__m512)other, (__m512)x);
#elif AVX2
    return (vec)_mm256_min_ps((__m256)other, (__m256)x);
#else
    return select_vec(x > other, other, x);
#endif
}
INLINE vec abs_vec(vec x) { return (vec)((ivec)x & 0x7fffffff); }

/* 2^x with a relative error of 1e-7. It is exact at 0, exactly 0 from -127 down, infinite at 128, and
 * NaN where x is NaN, since then the polynomial is NaN. x must be at most 128.
 *
 * x = n + k/ENTRIES + r: 2^(k/ENTRIES) is looked up by the CPU's permutation instruction, 2^r is a
 * short polynomial, 2^n an addition to the exponent's bits. Adding 1.5 * 2^23 / ENTRIES rounds x to
 * whole entries and leaves n and k in the sum's low bits. The polynomial is minimax but for p(0) = 1
 * and (with tables) p'(0) = ln 2. It must be accurate near 0: slow decays are there, and a state
 * multiplies thousands of them. */
#if AVX512 || AVX2
#if AVX512
#define ENTRIES_LOG2 4
#else
#define ENTRIES_LOG2 3
#endif
#define ROUNDING (1.5f * (1 << (23 - ENTRIES_LOG2)))
INLINE vec exp2_vec(vec x) {
    x = max_vec(x, splat(-127.0f));
    vec shifted = x + ROUNDING;
    vec r = x - (shifted - ROUNDING);
    /* 2^(k/ENTRIES), less the k that the shift below adds to the low end of the exponent's bits. */
#if AVX512
    const __m512 table = {0x1.000000p+0f, 0x1.fb5586p-1f, 0x1.f72b84p-1f, 0x1.f387a6p-1f,
                          0x1.f06fe0p-1f, 0x1.edea64p-1f, 0x1.ebfdaep-1f, 0x1.eab07ep-1f,
                          0x1.ea09e6p-1f, 0x1.ea1148p-1f, 0x1.eace54p-1f, 0x1.ec4918p-1f,
                          0x1.ee89fap-1f, 0x1.f199bep-1f, 0x1.f5818ep-1f, 0x1.fa4afap-1f};
    ivec k = (ivec)_mm512_permutexvar_ps((__m512i)shifted, table); /* by the low four bits */
    vec p = splat(5.550429225e-2f);
    p = p * r + 2.402342707e-01f;
    p = p * r + 6.931471806e-01f;
#else
    const __m256 table = {0x1.000000p+0f, 0x1.f72b84p-1f, 0x1.f06fe0p-1f, 0x1.ebfdaep-1f,
                          0x1.ea09e6p-1f, 0x1.eace54p-1f, 0x1.ee89fap-1f, 0x1.f5818ep-1f};
    ivec k = (ivec)_mm256_permutevar8x32_ps(table, (__m256i)shifted); /* by the low three bits */
    vec p = splat(5.549622177e-2f);
    p = p * r + 2.402576300e-01f;
    p = p * r + 6.931472143e-01f;
#endif
    p = p * r + 1.0f;
    return (vec)(k + ((ivec)shifted << (23 - ENTRIES_LOG2))) * p;
}
#else
INLINE vec exp2_vec(vec x) {
    x = max_vec(x, splat(-127.0f));
    vec shifted = x + 12582912.0f;
    vec r = x - (shifted - 12582912.0f);
    vec p = splat(1.535336188319500e-4f);
    p = p * r + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    /* 2^n: its exponent's bits are n + 127, so it is 0 at n = -127. */
    return (vec)((ivec)splat(1.0f) + ((ivec)shifted << 23)) * p;
}
#endif

/* 1/x to float32's accuracy, for x from 1 to infinity. With AVX-512, the CPU's estimate and a Newton
 * step take half of the time that a division does; AVX2's estimate is too coarse for one step. The
 * estimate r of an infinite x is 0, so 1 - x r is NaN, which the maximum replaces by -1. If x is NaN,
 * r is NaN and stays so. */
INLINE vec reciprocal(vec x) {
#if AVX512
    vec r = (vec)_mm512_rcp14_ps((__m512)x);
    return r + r * (vec)_mm512_max_ps((__m512)(1.0f - x * r), (__m512)splat(-1.0f));
#else
    return 1.0f / x;
#endif
}

INLINE vec sigmoid(vec x) { return reciprocal(1.0f + exp2_vec(min_vec(x * -LOG2_E, splat(128.0f)))); }

/* log(1 + e^x) = max(x, 0) + log(1 + e^-|x|); the logarithm of 1 + e is e P(e), P minimax for its
 * relative error, as the result may be tiny. `exponential` takes e. */
INLINE vec softplus(vec x, vec *exponential) {
    vec e = *exponential = exp2_vec(abs_vec(x) * -LOG2_E);
    vec p = splat(-3.2440251671e-3f);
    p = p * e + 1.9851462916e-2f;
    p = p * e - 5.6959535927e-2f;
    p = p * e + 1.0603655130e-1f;
    p = p * e - 1.5305592120e-1f;
    p = p * e + 1.9675938785e-1f;
    p = p * e - 2.4954134226e-1f;
    p = p * e + 3.3329963684e-1f;
    p = p * e - 4.9999901652e-1f;
    p = p * e + 1.0f;
    return max_vec(x, splat(0.0f)) + p * e;
}

/* The derivative of softplus, sigmoid(x), from the exponential that softplus computed. */
INLINE vec softplus_slope(vec x, vec exponential) {
    vec r = reciprocal(1.0f + exponential);
    return select_vec(x < splat(0.0f), exponential * r, r);
}

/* The sum over the lanes of each of LANES vectors, as the lanes of one vector. Fixed order. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE __builtin_shufflevector
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
INLINE vec lane_sums(const vec *r) {
#if LANES == 16
    vec a[8], b[4], c[2];
    UNROLL for (int i = 0; i < 8; i++)
        a[i] = SHUFFLE(r[i], r[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
               SHUFFLE(r[i], r[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    UNROLL for (int i = 0; i < 4; i++)
        b[i] = SHUFFLE(a[i], a[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               SHUFFLE(a[i], a[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    UNROLL for (int i = 0; i < 2; i++)
        c[i] = SHUFFLE(b[i], b[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               SHUFFLE(b[i], b[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    return SHUFFLE(c[0], c[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
           SHUFFLE(c[0], c[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
#else
    vec a[4], b[2];
    UNROLL for (int i = 0; i < 4; i++)
        a[i] = SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11) +
               SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    UNROLL for (int i = 0; i < 2; i++)
        b[i] = SHUFFLE(a[i], a[i + 2], 0, 1, 8, 9, 4, 5, 12, 13) +
               SHUFFLE(a[i], a[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLE(b[0], b[1], 0, 8, 2, 10, 4, 12, 6, 14) +
           SHUFFLE(b[0], b[1], 1, 9, 3, 11, 5, 13, 7, 15);
#endif
}

INLINE void prefetch(const float *p, int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i);
}

INLINE int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}
INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
