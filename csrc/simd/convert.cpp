// Conversion of arrays between half types and float, by the machine's instructions where it has
// them.
#include "simd/convert.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define CUSTOM_OPS_F16C 1
#endif

#include "simd/multiversion.h"

namespace custom_ops {
namespace {

#ifdef CUSTOM_OPS_F16C
bool has_f16c() {
  static const bool supported = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  return supported;
}

// Each converts whole vectors and returns how many elements that was.
__attribute__((target("avx2,f16c"))) int64_t to_float_f16c(const Half* from, float* to,
                                                           int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
  }
  return i;
}

__attribute__((target("avx2,f16c"))) int64_t from_float_f16c(const float* from, Half* to,
                                                             int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 values = _mm256_loadu_ps(from + i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                     _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  return i;
}
#endif

}  // namespace

void to_float(const Half* from, float* to, int64_t count) {
  int64_t i = 0;
#ifdef CUSTOM_OPS_F16C
  if (has_f16c()) i = to_float_f16c(from, to, count);
#endif
  for (; i < count; ++i) to[i] = to_float(from[i]);
}

void from_float(const float* from, Half* to, int64_t count) {
  int64_t i = 0;
#ifdef CUSTOM_OPS_F16C
  if (has_f16c()) i = from_float_f16c(from, to, count);
#endif
  for (; i < count; ++i) to[i] = from_float<Half>(from[i]);
}

CUSTOM_OPS_MULTIVERSION void to_float(const BFloat16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}

CUSTOM_OPS_MULTIVERSION void from_float(const float* from, BFloat16* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from_float<BFloat16>(from[i]);
}

}  // namespace custom_ops
