// Detects the instruction sets of the machine.
#include "simd/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "simd/targets.h"

namespace custom_ops {

std::vector<Isa> supported_isas() {
  std::vector<Isa> all{Isa::kBaseline};
#ifdef CUSTOM_OPS_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    all.push_back(Isa::kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      all.push_back(Isa::kAvx512);
    }
  }
#endif
  return all;
}

namespace {

Isa choose() {
  const std::vector<Isa> all = supported_isas();
  const char* forced = std::getenv("CUSTOM_OPS_ISA");
  if (forced == nullptr || *forced == '\0') return all.back();
  std::string names;
  for (Isa candidate : all) {
    if (std::string(forced) == name(candidate)) return candidate;
    names += (names.empty() ? "" : ", ") + std::string(name(candidate));
  }
  throw std::runtime_error("custom_ops: CUSTOM_OPS_ISA must be one that this machine has (" +
                           names + "), got " + forced + "; unset it to get the fastest");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* name(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return "baseline";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

}  // namespace custom_ops
