// mul_add: y = alpha * a + b, elementwise, on tensors of one shape.
#include <algorithm>

#include "core/register.h"
#include "core/strided.h"
#include "ops/mul_add/kernels.h"

namespace custom_ops::mul_add {
namespace {

// Strided runs pass through contiguous blocks, so that an element's bits do not depend on where it
// lies.
constexpr int64_t kBlock = 512;

template <typename T>
void run_strided(Kernel<T> run, Compute<T> scale, const T* a, int64_t stride_a, const T* b,
                 int64_t stride_b, T* y, int64_t stride_y, int64_t count) {
  if (stride_a == 1 && stride_b == 1 && stride_y == 1) return run(scale, a, b, y, count);
  T left[kBlock], right[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t size = std::min(kBlock, count - i);
    for (int64_t j = 0; j < size; ++j) {
      left[j] = a[(i + j) * stride_a];
      right[j] = b[(i + j) * stride_b];
    }
    run(scale, left, right, left, size);
    for (int64_t j = 0; j < size; ++j) y[(i + j) * stride_y] = left[j];
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
    const Kernel<T> run = kernel<T>();  // here: an error has fewer layers to pass
    const StridedLoop<3> loop(y.shape, {a.strides, b.strides, y.strides});
    context.parallel_for(y.size(), kGrain, [&](int64_t begin, int64_t end) {
      loop(begin, end, [&](const auto& offsets, const auto& strides, int64_t count) {
        run_strided(run, scale, a.data + offsets[0], strides[0], b.data + offsets[1], strides[1],
                    y.data + offsets[2], strides[2], count);
      });
    });
  }

 private:
  static constexpr int64_t kGrain = 32768;  // as torch's elementwise ops
};

CUSTOM_OPS_REGISTER(MulAdd, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops::mul_add
