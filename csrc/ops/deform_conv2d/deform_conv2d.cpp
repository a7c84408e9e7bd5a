// deform_conv2d: deformable convolution, v1 and v2 (https://arxiv.org/abs/1811.11168, eq. 1).
#include "ops/deform_conv2d/sampling.h"
#include "simd/product.h"

namespace custom_ops::deform_conv2d {
namespace {

struct DeformConv2d : Attributes {
  static constexpr const char* name = "deform_conv2d";
  static constexpr const char* onnx_name = "DeformConv2d";
  static constexpr InputSpec inputs[] = {
      {"input"}, {"weight"}, {"offset"}, {"bias", Neutral{0, 1}}, {"mask", Neutral{1, 4}}};
  static constexpr const char* outputs[] = {"output"};

  template <typename Dim>
  Shape<Dim> infer(const Shape<Dim>& input, const Shape<Dim>& weight, const Shape<Dim>& offset,
                   const Shape<Dim>* bias, const Shape<Dim>* mask) const {
    return check(input, weight, offset, bias, mask).output();
  }

  // For each tile of pixels: sample the input into columns, then multiply by the weight.
  template <typename T>
  void compute(const Context& context, In<T> input, In<T> weight, In<T> offset, OptionalIn<T> bias,
               OptionalIn<T> mask, Out<T> output) const {
    using A = Compute<T>;
    if (output.size() == 0) return;
    const Problem<T> problem{input, offset, mask, *this, geometry_of(*this, input, weight, offset)};
    const Geometry<int64_t>& g = problem.g;
    const Scratch<A> weights(context, weight.size());
    copy_weight(weight, weights.data());
    const int64_t group_outputs = g.out_channels / g.groups, depth = g.group_channels * g.taps();

    context.parallel_for(g.batch * problem.tiles(), 1, [&](int64_t begin, int64_t end) {
      const Scratch<Sample<A>> samples(context, g.taps() * kTile);
      const Scratch<A> columns(context, depth * kTile);
      const Scratch<A> sums(context, group_outputs * kTile);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / problem.tiles(), first = task % problem.tiles() * kTile;
        const int64_t count = std::min(kTile, problem.pixels() - first);
        int64_t planned = -1;
        for (int64_t group = 0; group < g.groups; ++group) {
          for (int64_t c = 0; c < g.group_channels; ++c) {
            const int64_t channel = group * g.group_channels + c;
            const int64_t offset_group = channel / (g.channels / g.offset_groups);
            if (offset_group != planned) {
              problem.plan(n, offset_group, first, count, samples.data());
              planned = offset_group;
            }
            sample_channel(problem.input_channel(n, channel), samples.data(), g.taps(), count,
                           columns.data() + c * g.taps() * kTile);
          }
          std::fill_n(sums.data(), group_outputs * kTile, A(0));
          const A* group_weight = weights.data() + group * group_outputs * depth;
          multiply_add(group_outputs, count, depth, {group_weight, depth, 1}, columns.data(), kTile,
                       sums.data(), kTile);
          for (int64_t o = 0; o < group_outputs; ++o) {
            const int64_t channel = group * group_outputs + o;
            const A shift = bias_at(bias, channel);
            T* out = output.data + (n * g.out_channels + channel) * problem.pixels() + first;
            for (int64_t p = 0; p < count; ++p) out[p] = store<T>(sums[o * kTile + p] + shift);
          }
        }
      }
    });
  }

 private:
  template <typename T, typename A>
  static void sample_channel(const T* channel, const Sample<A>* samples, int64_t taps,
                             int64_t count, A* columns) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      for (int64_t p = 0; p < count; ++p) {
        const Sample<A>& sample = samples[tap * kTile + p];
        columns[tap * kTile + p] = sample.inside ? sample.mask * sample.value(channel) : A(0);
      }
    }
  }

  template <typename T>
  static Compute<T> bias_at(const OptionalIn<T>& bias, int64_t channel) {
    if (!bias) return 0;
    return load(bias->data[bias->size() == 1 ? 0 : channel * bias->strides[0]]);
  }
};

CUSTOM_OPS_REGISTER(DeformConv2d, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops::deform_conv2d
