// The instruction sets that kernels are compiled for, and the choice among them.
#pragma once

#include <vector>

#include "core/op.h"

namespace custom_ops {

// Without AVX-512 or AVX2 the kernels use what the compiler may assume of every machine of the
// kind: SSE2 on x86-64, NEON on aarch64.
enum class Isa { kBaseline, kAvx2, kAvx512 };

// Those that this machine has, the best last.
CUSTOM_OPS_EXPORT std::vector<Isa> supported_isas();

// The best set that this machine has, or the one that the environment variable CUSTOM_OPS_ISA
// names. Chosen once. Throws std::runtime_error where the variable names a set that the machine
// does not have.
CUSTOM_OPS_EXPORT Isa isa();

// "baseline", "avx2" or "avx512".
CUSTOM_OPS_EXPORT const char* name(Isa isa);

}  // namespace custom_ops
