// The inner kernel of mul_add, which is compiled for each instruction set.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace custom_ops::mul_add {

// y[i] = scale * a[i] + b[i], computed in the compute type and rounded once.
template <typename T>
using Kernel = void (*)(Compute<T> scale, const T* a, const T* b, T* y, int64_t count);

// That of the instruction set in use. Defined for the four floating types.
template <typename T>
Kernel<T> kernel();

}  // namespace custom_ops::mul_add
