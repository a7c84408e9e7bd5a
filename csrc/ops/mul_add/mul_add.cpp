// mul_add: y = alpha * a + b, elementwise, on tensors of one shape.
#include <algorithm>

#include "core/register.h"
#include "core/strided.h"
#include "simd/convert.h"
#include "simd/multiversion.h"
#include "simd/vector.h"

namespace custom_ops {
namespace {

// Contiguous runs, in the compute type.
template <typename T>
[[gnu::always_inline]] inline void run_inline(T scale, const T* a, const T* b, T* y,
                                              int64_t count) {
  int64_t i = 0;
  for (; i + Vector<T>::size <= count; i += Vector<T>::size) {
    typename Vector<T>::type left, right;
    read<T>(left, a + i);
    read<T>(right, b + i);
    write<T>(y + i, scale * left + right);
  }
  if (i == count) return;
  // The rest goes through a vector too: its bits are those of the others.
  T left[Vector<T>::size] = {}, right[Vector<T>::size] = {};
  std::copy(a + i, a + count, left);
  std::copy(b + i, b + count, right);
  typename Vector<T>::type last_a, last_b;
  read<T>(last_a, left);
  read<T>(last_b, right);
  write<T>(left, scale * last_a + last_b);
  std::copy(left, left + (count - i), y + i);
}

CUSTOM_OPS_MULTIVERSION void run(float scale, const float* a, const float* b, float* y,
                                 int64_t count) {
  run_inline(scale, a, b, y, count);
}

CUSTOM_OPS_MULTIVERSION void run(double scale, const double* a, const double* b, double* y,
                                 int64_t count) {
  run_inline(scale, a, b, y, count);
}

// Other types and strides pass through a block in the compute type, so that an element's bits do
// not depend on where it lies.
constexpr int64_t kBlock = 512;

template <typename T>
void gather(const T* from, int64_t stride, Compute<T>* to, int64_t count) {
  if constexpr (is_half<T>) {
    if (stride == 1) return to_float(from, to, count);
  }
  for (int64_t i = 0; i < count; ++i) to[i] = load(from[i * stride]);
}

template <typename T>
void scatter(const Compute<T>* from, T* to, int64_t stride, int64_t count) {
  if constexpr (is_half<T>) {
    if (stride == 1) return from_float(from, to, count);
  }
  for (int64_t i = 0; i < count; ++i) to[i * stride] = store<T>(from[i]);
}

template <typename T>
void run_strided(Compute<T> scale, const T* a, int64_t stride_a, const T* b, int64_t stride_b, T* y,
                 int64_t stride_y, int64_t count) {
  if constexpr (!is_half<T>) {
    if (stride_a == 1 && stride_b == 1 && stride_y == 1) return run(scale, a, b, y, count);
  }
  Compute<T> left[kBlock], right[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t size = std::min(kBlock, count - i);
    gather(a + i * stride_a, stride_a, left, size);
    gather(b + i * stride_b, stride_b, right, size);
    run(scale, left, right, left, size);
    scatter(left, y + i * stride_y, stride_y, size);
  }
}

struct MulAdd {
  static constexpr const char* name = "mul_add";
  static constexpr const char* onnx_name = "MulAdd";
  static constexpr InputSpec inputs[] = {{"a"}, {"b"}};
  static constexpr const char* outputs[] = {"y"};
  static constexpr Layout layout = Layout::kLikeFirstInput;

  double alpha = 2.0;
  void attributes(auto&& visit) { visit("alpha", alpha); }

  template <typename Dim>
  Shape<Dim> infer(const Shape<Dim>& a, const Shape<Dim>& b) const {
    if (!(a == b)) {
      fail("b", text("must have the shape of a ", a), b, "expand it first");
    }
    return a;
  }

  template <typename T>
  void compute(const Context& context, In<T> a, In<T> b, Out<T> y) const {
    const auto scale = static_cast<Compute<T>>(alpha);
    const StridedLoop<3> loop(y.shape, {a.strides, b.strides, y.strides});
    context.parallel_for(y.size(), kGrain, [&](int64_t begin, int64_t end) {
      loop(begin, end, [&](const auto& offsets, const auto& strides, int64_t count) {
        run_strided(scale, a.data + offsets[0], strides[0], b.data + offsets[1], strides[1],
                    y.data + offsets[2], strides[2], count);
      });
    });
  }

 private:
  static constexpr int64_t kGrain = 32768;  // as torch's elementwise ops
};

CUSTOM_OPS_REGISTER(MulAdd, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops
