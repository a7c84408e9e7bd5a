// Conversion of arrays between half types and float, by the machine's instructions where it has
// them.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace custom_ops {

void to_float(const Half* from, float* to, int64_t count);
void to_float(const BFloat16* from, float* to, int64_t count);
void from_float(const float* from, Half* to, int64_t count);
void from_float(const float* from, BFloat16* to, int64_t count);

}  // namespace custom_ops
