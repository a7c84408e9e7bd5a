// Compiles the inner kernel of mul_add for each instruction set.
#include "ops/mul_add/kernels.h"

#include <algorithm>

#define CUSTOM_OPS_KERNELS "ops/mul_add/kernels_inl.h"
#include "simd/for_each_isa.h"

namespace custom_ops::mul_add {

template <typename T>
Kernel<T> kernel() {
#ifdef CUSTOM_OPS_X86
  // Memory is the bound: 512-bit vectors gain nothing, and on Zen 4 lose 10%.
  if (isa() != Isa::kBaseline) return avx2::run<T>;
#endif
  return baseline::run<T>;
}

template Kernel<float> kernel<float>();
template Kernel<double> kernel<double>();
template Kernel<Half> kernel<Half>();
template Kernel<BFloat16> kernel<BFloat16>();

}  // namespace custom_ops::mul_add
