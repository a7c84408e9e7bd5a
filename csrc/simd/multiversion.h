// Compiles a function once for each instruction set; the loader picks by what the machine has.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && \
    defined(__gnu_linux__)
#define CUSTOM_OPS_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CUSTOM_OPS_MULTIVERSION
#endif
