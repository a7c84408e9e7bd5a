// What the machine's multiply-add units can do at most, to measure kernels by.
#pragma once

#include "core/op.h"

namespace custom_ops {

// FLOP/s of float32 multiply-adds on the calling thread, with the instruction set in use; busy for
// so many seconds.
CUSTOM_OPS_EXPORT double measure_fma_peak(double seconds);

}  // namespace custom_ops
