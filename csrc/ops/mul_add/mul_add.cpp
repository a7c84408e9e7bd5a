// mul_add: y = alpha * a + b, elementwise, on tensors of one shape.
#include "core/register.h"
#include "core/strided.h"
#include "simd/multiversion.h"

namespace custom_ops {
namespace {

template <typename T>
[[gnu::always_inline]] inline void run_inline(Compute<T> scale, const T* a, int64_t stride_a,
                                              const T* b, int64_t stride_b, T* y, int64_t stride_y,
                                              int64_t count) {
  if (stride_a == 1 && stride_b == 1 && stride_y == 1) {
    for (int64_t i = 0; i < count; ++i) y[i] = store<T>(scale * load(a[i]) + load(b[i]));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      y[i * stride_y] = store<T>(scale * load(a[i * stride_a]) + load(b[i * stride_b]));
    }
  }
}

#define DEFINE_RUN(T)                                                                          \
  CUSTOM_OPS_MULTIVERSION void run(Compute<T> scale, const T* a, int64_t stride_a, const T* b, \
                                   int64_t stride_b, T* y, int64_t stride_y, int64_t count) {  \
    run_inline<T>(scale, a, stride_a, b, stride_b, y, stride_y, count);                        \
  }
DEFINE_RUN(float)
DEFINE_RUN(double)
DEFINE_RUN(Half)
DEFINE_RUN(BFloat16)
#undef DEFINE_RUN

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
        run(scale, a.data + offsets[0], strides[0], b.data + offsets[1], strides[1],
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
