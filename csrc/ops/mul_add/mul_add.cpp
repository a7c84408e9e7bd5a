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
  for (; i < count; ++i) y[i] = scale * a[i] + b[i];
}

CUSTOM_OPS_MULTIVERSION void run(float scale, const float* a, const float* b, float* y,
                                 int64_t count) {
  run_inline(scale, a, b, y, count);
}

CUSTOM_OPS_MULTIVERSION void run(double scale, const double* a, const double* b, double* y,
                                 int64_t count) {
  run_inline(scale, a, b, y, count);
}

// Half types pass through float, a block that stays in the cache at a time.
template <typename T>
void run(float scale, const T* a, const T* b, T* y, int64_t count) {
  constexpr int64_t kBlock = 512;
  float left[kBlock], right[kBlock];
  for (int64_t i = 0; i < count; i += kBlock) {
    const int64_t size = std::min(kBlock, count - i);
    to_float(a + i, left, size);
    to_float(b + i, right, size);
    run(scale, left, right, left, size);
    from_float(left, y + i, size);
  }
}

template <typename T>
void run_strided(Compute<T> scale, const T* a, int64_t stride_a, const T* b, int64_t stride_b, T* y,
                 int64_t stride_y, int64_t count) {
  if (stride_a == 1 && stride_b == 1 && stride_y == 1) return run(scale, a, b, y, count);
  for (int64_t i = 0; i < count; ++i) {
    y[i * stride_y] = store<T>(scale * load(a[i * stride_a]) + load(b[i * stride_b]));
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
