// Vectors of one instruction set: arithmetic is that of the compiler's vector types. Included by
// for_each_isa.h, once for each set.

#define CUSTOM_OPS_INLINE [[gnu::always_inline]] static inline

namespace custom_ops::CUSTOM_OPS_ISA {
namespace {

// `size` elements of type T.
template <typename T, int kSize>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kSize)));
  typedef type unaligned __attribute__((aligned(alignof(T)), may_alias));
};

// How many elements of type T fill a register, and the register.
template <typename T>
inline constexpr int lanes = CUSTOM_OPS_VECTOR_BYTES / static_cast<int>(sizeof(T));
template <typename T>
using Vector = typename VectorOf<T, lanes<T>>::type;

template <typename T, int kSize = lanes<T>>
CUSTOM_OPS_INLINE typename VectorOf<T, kSize>::type read(const T* from) {
  return *reinterpret_cast<const typename VectorOf<T, kSize>::unaligned*>(from);
}

template <typename T, int kSize = lanes<T>>
CUSTOM_OPS_INLINE void write(T* to, typename VectorOf<T, kSize>::type value) {
  *reinterpret_cast<typename VectorOf<T, kSize>::unaligned*>(to) = value;
}

// Elements as their compute type: the value of float32 and float64, half types converted.
CUSTOM_OPS_INLINE Vector<float> load(const float* from) { return read(from); }
CUSTOM_OPS_INLINE Vector<double> load(const double* from) { return read(from); }
CUSTOM_OPS_INLINE void store(float* to, Vector<float> value) { write(to, value); }
CUSTOM_OPS_INLINE void store(double* to, Vector<double> value) { write(to, value); }

using Bits = Vector<uint32_t>;
using HalfBits = VectorOf<uint16_t, lanes<float>>;

CUSTOM_OPS_INLINE Bits bits_of(const uint16_t* from) {
  return __builtin_convertvector((read<uint16_t, lanes<float>>(from)), Bits);
}

CUSTOM_OPS_INLINE Vector<float> load(const BFloat16* from) {
  return (Vector<float>)(bits_of(reinterpret_cast<const uint16_t*>(from)) << 16);
}

CUSTOM_OPS_INLINE void store(BFloat16* to, Vector<float> value) {
  const Bits bits = (Bits)value;
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits result = (bits & 0x7fffffffu) > 0x7f800000u ? (Bits{} + 0x7fc0u) : rounded;
  write<uint16_t, lanes<float>>(reinterpret_cast<uint16_t*>(to),
                                __builtin_convertvector(result, HalfBits::type));
}

#if defined(CUSTOM_OPS_F16C) && CUSTOM_OPS_VECTOR_BYTES == 64
CUSTOM_OPS_INLINE Vector<float> load(const Half* from) {
  return (Vector<float>)_mm512_maskz_cvtph_ps(
      0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
CUSTOM_OPS_INLINE void store(Half* to, Vector<float> value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(CUSTOM_OPS_F16C)
CUSTOM_OPS_INLINE Vector<float> load(const Half* from) {
  return (Vector<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
CUSTOM_OPS_INLINE void store(Half* to, Vector<float> value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__aarch64__)
CUSTOM_OPS_INLINE Vector<float> load(const Half* from) {
  const uint16x4_t bits = vld1_u16(reinterpret_cast<const uint16_t*>(from));
  return (Vector<float>)vcvt_f32_f16(vreinterpret_f16_u16(bits));
}
CUSTOM_OPS_INLINE void store(Half* to, Vector<float> value) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value)));
}
#else
CUSTOM_OPS_INLINE Vector<float> load(const Half* from) {
  Vector<float> value;
  for (int i = 0; i < lanes<float>; ++i) value[i] = to_float(from[i]);
  return value;
}
CUSTOM_OPS_INLINE void store(Half* to, Vector<float> value) {
  for (int i = 0; i < lanes<float>; ++i) to[i] = from_float<Half>(value[i]);
}
#endif

}  // namespace
}  // namespace custom_ops::CUSTOM_OPS_ISA
