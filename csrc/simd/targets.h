// Which instruction sets this compiler can build kernels for, beside the baseline, and the choice
// of a kernel by the machine's.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CUSTOM_OPS_X86 1
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

// The thing of that name in the namespace of the instruction set in use.
#ifdef CUSTOM_OPS_X86
#define CUSTOM_OPS_CHOOSE(thing)                                     \
  (::custom_ops::isa() == ::custom_ops::Isa::kAvx512 ? avx512::thing \
   : ::custom_ops::isa() == ::custom_ops::Isa::kAvx2 ? avx2::thing   \
                                                     : baseline::thing)
#else
#define CUSTOM_OPS_CHOOSE(thing) (::custom_ops::isa(), baseline::thing)
#endif
