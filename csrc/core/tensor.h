// Views of the host's tensors, as kernels see them. Strides count elements and may be any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/dtype.h"

namespace custom_ops {

using Dims = std::span<const int64_t>;

inline int64_t element_count(Dims shape) {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

template <typename T>
struct View {
  T* data;
  Dims shape;
  Dims strides;

  int64_t size() const { return element_count(shape); }
};

// An input, an input that the caller may leave out, and an output.
template <typename T>
using In = View<const T>;
template <typename T>
using OptionalIn = std::optional<View<const T>>;
template <typename T>
using Out = View<T>;

// A tensor whose element type is known only at run time.
struct Tensor {
  void* data;
  Dims shape;
  Dims strides;
};

}  // namespace custom_ops
