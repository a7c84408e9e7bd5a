// masked_moments: mean and spread over the steps of sequences of different lengths.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/register.h"

namespace custom_ops {
namespace {

struct MaskedMoments {
  static constexpr const char* name = "masked_moments";
  static constexpr const char* onnx_name = "MaskedMoments";
  static constexpr InputSpec inputs[] = {{"x"}, {"lengths"}, {"scale", Neutral{1, 1}}};
  static constexpr const char* outputs[] = {"mean", "spread"};

  std::vector<int64_t> trim{0, 0};
  int64_t correction = 0;
  double eps = 1e-5;
  bool center = true;
  std::string kind = "variance";

  void attributes(auto&& visit) {
    visit("trim", trim);
    visit("correction", correction);
    visit("eps", eps);
    visit("center", center);
    visit("kind", kind);
  }

  template <typename Dim>
  Shapes<Dim> infer(const Shape<Dim>& x, const Shape<Dim>& lengths, const Shape<Dim>* scale) const {
    if (x.rank() != 3) fail("x", "must have 3 dimensions [N, T, C]", x);
    if (!(lengths == Shape<Dim>{x[0]})) {
      fail("lengths", text("must have shape [", x[0], "]"), lengths);
    }
    if (scale && !(*scale == Shape<Dim>{Dim(1)}) && !(*scale == Shape<Dim>{x[2]})) {
      fail("scale", text("must have shape [", x[2], "]"), *scale, "or [1] for one value");
    }
    if (trim.size() != 2 || std::min(trim[0], trim[1]) < 0) {
      fail("trim", "must have 2 values of at least 0", trim);
    }
    if (correction < 0) fail("correction", "must be at least 0", correction);
    if (kind != "variance" && kind != "deviation") {
      fail("kind", "must be variance or deviation", kind);
    }
    return {{x[0], x[2]}, {x[0], x[2]}};
  }

  template <typename T>
  void compute(const Context& context, In<T> x, In<int64_t> lengths, OptionalIn<T> scale,
               Out<T> mean, Out<T> spread) const {
    using A = Compute<T>;
    const int64_t steps = x.shape[1], channels = x.shape[2];
    context.parallel_for(x.shape[0] * channels, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / channels, c = i % channels;
        const A factor =
            scale ? load(scale->data[scale->size() == 1 ? 0 : c * scale->strides[0]]) : A(1);
        const int64_t first = trim[0];
        const int64_t last = std::min(lengths.data[n * lengths.strides[0]], steps) - trim[1];
        const auto count = static_cast<A>(std::max<int64_t>(last - first, 1));
        const T* values = x.data + n * x.strides[0] + c * x.strides[2];

        A sum = 0, squares = 0;
        for (int64_t t = first; t < last; ++t) sum += factor * load(values[t * x.strides[1]]);
        const A origin = center ? sum / count : A(0);
        for (int64_t t = first; t < last; ++t) {
          const A distance = factor * load(values[t * x.strides[1]]) - origin;
          squares += distance * distance;
        }
        const A variance = squares / std::max<A>(count - static_cast<A>(correction), A(1));
        mean.data[n * mean.strides[0] + c * mean.strides[1]] = store<T>(sum / count);
        spread.data[n * spread.strides[0] + c * spread.strides[1]] =
            store<T>(kind == "deviation" ? std::sqrt(variance + static_cast<A>(eps)) : variance);
      }
    });
  }
};

CUSTOM_OPS_REGISTER(MaskedMoments, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops
