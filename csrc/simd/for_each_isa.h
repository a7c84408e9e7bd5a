// Compiles a source of kernels once for each instruction set:
//
//   #define CUSTOM_OPS_KERNELS "ops/my_op/kernels_inl.h"
//   #include "simd/for_each_isa.h"
//
// The source puts its kernels into `namespace CUSTOM_OPS_ISA`, and CUSTOM_OPS_CHOOSE(name) gives
// the one to call. What the source needs of other headers is included before, since a header that
// is first included here would be compiled for one instruction set only; what it defines itself is
// `static`, or always inlined, so that the linker cannot take a function of one set for another's.
// No include guard: each use is another source.
#include "simd/isa.h"
#include "simd/targets.h"

#ifdef CUSTOM_OPS_X86

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define CUSTOM_OPS_ISA avx2
#define CUSTOM_OPS_VECTOR_BYTES 32
#define CUSTOM_OPS_F16C 1
#include "simd/all_inl.h"
#include CUSTOM_OPS_KERNELS
#undef CUSTOM_OPS_ISA
#undef CUSTOM_OPS_VECTOR_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#define CUSTOM_OPS_ISA avx512
#define CUSTOM_OPS_VECTOR_BYTES 64
#include "simd/all_inl.h"
#include CUSTOM_OPS_KERNELS
#undef CUSTOM_OPS_ISA
#undef CUSTOM_OPS_VECTOR_BYTES
#undef CUSTOM_OPS_F16C
#pragma GCC pop_options

#endif

#define CUSTOM_OPS_ISA baseline
#define CUSTOM_OPS_VECTOR_BYTES 16
#include "simd/all_inl.h"
#include CUSTOM_OPS_KERNELS
#undef CUSTOM_OPS_ISA
#undef CUSTOM_OPS_VECTOR_BYTES
#undef CUSTOM_OPS_KERNELS
