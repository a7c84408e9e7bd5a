// What sources of kernels build on, in the order that they need one another. Included by
// for_each_isa.h, once for each instruction set.
// clang-format off
#include "simd/vector_inl.h"
#include "simd/transpose_inl.h"
#include "simd/product_inl.h"
// clang-format on
