// Element types: the four floating types that ops compute on, and the integers they may index with.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace custom_ops {

// IEEE binary16, stored only: kernels compute in float.
struct Half {
  uint16_t bits;
};

// The upper half of an IEEE binary32, stored only: kernels compute in float.
struct BFloat16 {
  uint16_t bits;
};

// The conversions are free of branches, so that the compiler vectorises loops over them.

inline float to_float(Half value) {
  const uint32_t magnitude = value.bits & 0x7fffu;
  // Normal values: the exponent's bias moves from 15 to 127. Subnormal ones are integers times
  // 2^-24; no step has a subnormal float, which a host may have told the machine to take for 0.
  const float normal = std::bit_cast<float>((magnitude << 13) + 0x38000000u);
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  uint32_t bits = std::bit_cast<uint32_t>(magnitude < 0x400u ? subnormal : normal);
  bits |= magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN
  return std::bit_cast<float>(bits | static_cast<uint32_t>(value.bits & 0x8000u) << 16);
}

inline float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

template <typename T>
T from_float(float value);

template <>
inline Half from_float<Half>(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Normal results: round the mantissa to nearest even in integers, then shift the bias. The
  // lower bound keeps the subtraction from wrapping where the subnormal branch is taken.
  const uint32_t floor = magnitude < 0x38800000u ? 0x38800000u : magnitude;
  const uint32_t rounded = floor + 0xfffu + ((floor >> 13) & 1u);
  const uint32_t normal = (rounded - 0x38000000u) >> 13;
  // Subnormal results: adding 0.5 puts the mantissa's last bit at 2^-24, so that the addition
  // rounds.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000u;
  uint32_t result = magnitude < 0x38800000u ? subnormal : normal;
  result = magnitude >= 0x477ff000u ? 0x7c00u : result;  // 65520 and above round to infinity
  result = magnitude > 0x7f800000u ? 0x7e00u : result;   // NaN
  return Half{static_cast<uint16_t>(sign | result)};
}

template <>
inline BFloat16 from_float<BFloat16>(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return BFloat16{static_cast<uint16_t>(nan ? 0x7fc0u : rounded)};
}

template <typename T>
inline constexpr bool is_half = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

// The type that a kernel computes in, for tensors of type T.
template <typename T>
using Compute = std::conditional_t<is_half<T>, float, T>;

// Reads an element as its compute type, and back.
template <typename T>
inline Compute<T> load(T value) {
  if constexpr (is_half<T>) {
    return to_float(value);
  } else {
    return value;
  }
}

template <typename T>
inline T store(Compute<T> value) {
  if constexpr (is_half<T>) {
    return from_float<T>(value);
  } else {
    return value;
  }
}

enum class DType { kFloat32, kFloat64, kFloat16, kBFloat16, kInt32, kInt64, kBool };

template <typename T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType for this element type");
  return DType::kFloat32;
}();
template <>
inline constexpr DType dtype_of<float> = DType::kFloat32;
template <>
inline constexpr DType dtype_of<double> = DType::kFloat64;
template <>
inline constexpr DType dtype_of<Half> = DType::kFloat16;
template <>
inline constexpr DType dtype_of<BFloat16> = DType::kBFloat16;
template <>
inline constexpr DType dtype_of<int32_t> = DType::kInt32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::kInt64;
template <>
inline constexpr DType dtype_of<bool> = DType::kBool;

inline const char* name(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
    case DType::kBool:
      return "bool";
  }
  return "unknown";
}

}  // namespace custom_ops
