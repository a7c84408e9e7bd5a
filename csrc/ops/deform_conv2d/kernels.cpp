// Compiles the inner kernels of deformable convolution for each instruction set.
#include "ops/deform_conv2d/kernels.h"

#include <cstring>
#include <utility>

#include "core/dtype.h"

#define CUSTOM_OPS_KERNELS "ops/deform_conv2d/kernels_inl.h"
#include "simd/for_each_isa.h"

namespace custom_ops::deform_conv2d {

template <typename T>
const Kernels<T>& kernels() {
  static const Kernels<T>& chosen = CUSTOM_OPS_CHOOSE(kernel_table<T>);
  return chosen;
}

template const Kernels<float>& kernels();
template const Kernels<double>& kernels();
template const Kernels<Half>& kernels();
template const Kernels<BFloat16>& kernels();

}  // namespace custom_ops::deform_conv2d
