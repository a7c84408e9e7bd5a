// Turns square blocks in registers, and adds up lanes. Included by kernels, once for each
// instruction set.

namespace custom_ops::CUSTOM_OPS_ISA {
namespace {

// Elements of type T that a step within 128 bits turns: the size of the innermost blocks.
template <typename T>
inline constexpr int inner = 16 / static_cast<int>(sizeof(T));

// From each 128 bits, the lower (kHigh: upper) halves of a and b, element by element in turn.
template <typename T, int kSize, bool kHigh, int... kLane>
CUSTOM_OPS_INLINE auto interleave(typename VectorOf<T, kSize>::type a,
                                  typename VectorOf<T, kSize>::type b,
                                  std::integer_sequence<int, kLane...>) {
  constexpr int n = inner<T>;
  return __builtin_shufflevector(
      a, b,
      (kLane / n * n + kLane % n / 2 + (kHigh ? n / 2 : 0) + (kLane % 2 == 0 ? 0 : kSize))...);
}

// Blocks of kStep elements: a's even ones with b's even ones behind them (kHigh: the odd ones).
template <typename T, int kSize, int kStep, bool kHigh, int... kLane>
CUSTOM_OPS_INLINE auto exchange(typename VectorOf<T, kSize>::type a,
                                typename VectorOf<T, kSize>::type b,
                                std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b,
                                 ((kLane & kStep) == 0 ? kLane + (kHigh ? kStep : 0)
                                                       : kSize + kLane - (kHigh ? 0 : kStep))...);
}

template <typename T, int kSize, int kStep>
CUSTOM_OPS_INLINE void exchange_rows(typename VectorOf<T, kSize>::type (&rows)[kSize]) {
  constexpr auto lane = std::make_integer_sequence<int, kSize>();
#pragma GCC unroll 32
  for (int i = 0; i < kSize; ++i) {
    if ((i & kStep) != 0) continue;
    const auto a = rows[i], b = rows[i + kStep];
    rows[i] = exchange<T, kSize, kStep, false>(a, b, lane);
    rows[i + kStep] = exchange<T, kSize, kStep, true>(a, b, lane);
  }
}

// Turns a block of kSize rows of kSize elements.
template <typename T, int kSize>
CUSTOM_OPS_INLINE void transpose(typename VectorOf<T, kSize>::type (&rows)[kSize]) {
  constexpr auto lane = std::make_integer_sequence<int, kSize>();
  constexpr int n = inner<T>;
#pragma GCC unroll 8
  for (int block = 0; block < kSize; block += n) {
#pragma GCC unroll 3
    for (int step = 1; step < n; step *= 2) {
      typename VectorOf<T, kSize>::type turned[n];
#pragma GCC unroll 4
      for (int i = 0; i < n / 2; ++i) {
        const auto a = rows[block + i], b = rows[block + i + n / 2];
        turned[2 * i] = interleave<T, kSize, false>(a, b, lane);
        turned[2 * i + 1] = interleave<T, kSize, true>(a, b, lane);
      }
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) rows[block + i] = turned[i];
    }
  }
  if constexpr (n < kSize) exchange_rows<T, kSize, n>(rows);
  if constexpr (2 * n < kSize) exchange_rows<T, kSize, 2 * n>(rows);
  if constexpr (4 * n < kSize) exchange_rows<T, kSize, 4 * n>(rows);
}

// Adds the upper half of a vector to the lower until kTo lanes remain.
template <typename T, int kTo, int kSize, int... kLane>
CUSTOM_OPS_INLINE auto half_sum(typename VectorOf<T, kSize>::type value,
                                std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(value, value, kLane...) +
         __builtin_shufflevector(value, value, (kLane + kSize / 2)...);
}
template <typename T, int kTo, int kSize>
CUSTOM_OPS_INLINE auto fold(typename VectorOf<T, kSize>::type value) {
  if constexpr (kSize == kTo) {
    return value;
  } else {
    return fold<T, kTo, kSize / 2>(
        half_sum<T, kTo, kSize>(value, std::make_integer_sequence<int, kSize / 2>()));
  }
}

// The sums of the lanes of four vectors.
CUSTOM_OPS_INLINE void sum_four(const Vector<float> (&values)[4], float* sums) {
  constexpr int n = lanes<float>;
  constexpr auto lane = std::make_integer_sequence<int, n>();
  constexpr auto pair = std::make_integer_sequence<int, n / 2>();
  // (first, second, first, second) of each 128 bits, then all four.
  const Vector<double> a =
      (Vector<double>)(interleave<float, n, false>(values[0], values[1], lane) +
                       interleave<float, n, true>(values[0], values[1], lane));
  const Vector<double> b =
      (Vector<double>)(interleave<float, n, false>(values[2], values[3], lane) +
                       interleave<float, n, true>(values[2], values[3], lane));
  const Vector<float> all = (Vector<float>)interleave<double, n / 2, false>(a, b, pair) +
                            (Vector<float>)interleave<double, n / 2, true>(a, b, pair);
  write<float, 4>(sums, fold<float, 4, n>(all));
}
CUSTOM_OPS_INLINE void sum_four(const Vector<double> (&values)[4], double* sums) {
  constexpr int n = lanes<double>;
  constexpr auto lane = std::make_integer_sequence<int, n>();
  for (int i = 0; i < 4; i += 2) {
    const Vector<double> two = interleave<double, n, false>(values[i], values[i + 1], lane) +
                               interleave<double, n, true>(values[i], values[i + 1], lane);
    write<double, 2>(sums + i, fold<double, 2, n>(two));
  }
}

}  // namespace
}  // namespace custom_ops::CUSTOM_OPS_ISA
