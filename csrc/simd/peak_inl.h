// The source of the measurement of the peak. Included by peak.cpp, once for each instruction set.

namespace custom_ops::peak::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

// So many sums that each finds its last result ready, and that they, factor and summand fit into
// the registers: 32 on aarch64, else perhaps 16.
#ifdef __aarch64__
inline constexpr int kSums = 24;
#else
inline constexpr int kSums = 12;
#endif

// Gives the floating-point operations that it did.
static double multiply_add(int64_t times, float factor, float* values) {
  constexpr int n = lanes<float>;
  Vector<float> sums[kSums];
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) sums[i] = read(values + i * n);
  const Vector<float> by = Vector<float>{} + factor, more = Vector<float>{} + (1.0f - factor);
  for (int64_t k = 0; k < times; ++k) {
#pragma GCC unroll 24
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * by + more;
  }
#pragma GCC unroll 24
  for (int i = 0; i < kSums; ++i) write(values + i * n, sums[i]);
  return 2.0 * n * kSums * static_cast<double>(times);
}

}  // namespace
}  // namespace custom_ops::peak::CUSTOM_OPS_ISA
