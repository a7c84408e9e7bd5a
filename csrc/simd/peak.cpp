// Measures the peak of each instruction set.
#include "simd/peak.h"

#include <algorithm>
#include <chrono>
#include <vector>

#define CUSTOM_OPS_KERNELS "simd/peak_inl.h"
#include "simd/for_each_isa.h"

namespace custom_ops {
namespace peak {
namespace {

double measure(double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kTimes = 20000;  // a fraction of a millisecond: most runs are undisturbed
  const auto run = CUSTOM_OPS_CHOOSE(multiply_add);
  float values[1024] = {};
  std::vector<double> rates;
  const auto start = Clock::now();
  auto before = start;
  do {
    const double flops = run(kTimes, 0.5f, values);
    const auto now = Clock::now();
    rates.push_back(flops / std::chrono::duration<double>(now - before).count());
    before = now;
  } while (before - start < std::chrono::duration<double>(seconds));
  // The median: neither what a neighbour takes nor the moments before it starts.
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

}  // namespace
}  // namespace peak

double measure_fma_peak(double seconds) { return peak::measure(seconds); }

}  // namespace custom_ops
