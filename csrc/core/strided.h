// Walks several tensors of one shape and any strides in runs that are as long as possible.
#pragma once

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "core/tensor.h"

namespace custom_ops {

// The axes of N tensors of one shape, those that lie alike merged, the innermost last.
template <size_t N>
class StridedLoop {
 public:
  StridedLoop(Dims shape, const std::array<Dims, N>& strides) {
    std::vector<Axis> axes;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 1) continue;
      Axis axis{shape[i], {}};
      for (size_t t = 0; t < N; ++t) axis.strides[t] = strides[t][i];
      axes.push_back(axis);
    }
    // The last tensor decides the order: it is the output, which is written once.
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) {
      return std::llabs(a.strides[N - 1]) > std::llabs(b.strides[N - 1]);
    });
    for (const Axis& axis : axes) {
      if (!axes_.empty() && merges(axes_.back(), axis)) {
        axes_.back() = {axes_.back().size * axis.size, axis.strides};
      } else {
        axes_.push_back(axis);
      }
    }
    if (axes_.empty()) axes_.push_back({element_count(shape), {}});
  }

  // Calls run(offsets, strides, count) for the elements [begin, end), in elements from the start.
  template <typename Run>
  void operator()(int64_t begin, int64_t end, const Run& run) const {
    const Axis& inner = axes_.back();
    while (begin < end) {
      std::array<int64_t, N> offsets{};
      int64_t rest = begin;
      int64_t first = 0;
      for (size_t a = axes_.size(); a-- > 0;) {
        const int64_t index = rest % axes_[a].size;
        rest /= axes_[a].size;
        if (a + 1 == axes_.size()) first = index;
        for (size_t t = 0; t < N; ++t) offsets[t] += index * axes_[a].strides[t];
      }
      const int64_t count = std::min(inner.size - first, end - begin);
      run(offsets, inner.strides, count);
      begin += count;
    }
  }

 private:
  struct Axis {
    int64_t size;
    std::array<int64_t, N> strides;
  };

  static bool merges(const Axis& outer, const Axis& inner) {
    for (size_t t = 0; t < N; ++t) {
      if (outer.strides[t] != inner.size * inner.strides[t]) return false;
    }
    return true;
  }

  std::vector<Axis> axes_;
};

}  // namespace custom_ops
