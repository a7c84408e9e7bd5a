// The op that gives the gradients of deform_conv2d.
#include "ops/deform_conv2d/backward.h"

namespace custom_ops::deform_conv2d {
namespace {

// Which gradients the caller asked for, in the order of the inputs.
enum Needed { kInput, kWeight, kOffset, kBias, kMask };

// Adds up what a broadcast input of one element received everywhere.
template <typename T, typename Value>
T total(const Value* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(load(values[i]));
  return store<T>(static_cast<Compute<T>>(sum));
}

// The sum of the output's gradient over all images and pixels, for each output channel.
template <typename T>
void bias_gradient(const Context& context, In<T> grad, Compute<T>* sums) {
  using A = Compute<T>;
  const int64_t pixels = grad.shape[2] * grad.shape[3];
  context.parallel_for(grad.shape[1], 1, [&](int64_t begin, int64_t end) {
    A values[kTile];
    for (int64_t o = begin; o < end; ++o) {
      A total = 0;
      for (int64_t n = 0; n < grad.shape[0]; ++n) {
        for (int64_t first = 0; first < pixels; first += kTile) {
          const Tile tile{n, first, std::min(kTile, pixels - first)};
          copy_pixels(grad, tile, o, values);
          std::fill(values + tile.count, values + kTile, A(0));
          A lanes[16] = {};
          for (int64_t p = 0; p < kTile; p += 16) {
            for (int64_t i = 0; i < 16; ++i) lanes[i] += values[p + i];
          }
          for (A lane : lanes) total += lane;
        }
      }
      sums[o] = total;
    }
  });
}

struct DeformConv2dBackward : Attributes {
  static constexpr const char* name = "_deform_conv2d_backward";
  static constexpr InputSpec inputs[] = {{"grad"},
                                         {"input"},
                                         {"weight"},
                                         {"offset"},
                                         {"bias", Neutral{0, 1}},
                                         {"mask", Neutral{1, 4}}};
  static constexpr const char* outputs[] = {"grad_input", "grad_weight", "grad_offset", "grad_bias",
                                            "grad_mask"};

  std::vector<int64_t> needs{1, 1, 1, 1, 1};  // input, weight, offset, bias, mask
  void attributes(auto&& visit) {
    Attributes::attributes(visit);
    visit("needs", needs);
  }

  // An output that is not needed is empty.
  template <typename Dim>
  Shapes<Dim> infer(const Shape<Dim>& grad, const Shape<Dim>& input, const Shape<Dim>& weight,
                    const Shape<Dim>& offset, const Shape<Dim>* bias,
                    const Shape<Dim>* mask) const {
    const Shape<Dim> output = check(input, weight, offset, bias, mask).output();
    if (!(grad == output)) fail("grad", text("must have shape ", output), grad);
    if (needs.size() != 5) fail("needs", "must have 5 values", needs);
    if (needs[kBias] && bias == nullptr) fail("needs", "must be 0 for a bias left out", needs);
    if (needs[kMask] && mask == nullptr) fail("needs", "must be 0 for a mask left out", needs);
    const Shape<Dim> empty{Dim(0)};
    return {needs[kInput] ? input : empty, needs[kWeight] ? weight : empty,
            needs[kOffset] ? offset : empty, needs[kBias] ? *bias : empty,
            needs[kMask] ? *mask : empty};
  }

  template <typename T>
  void compute(const Context& context, In<T> grad, In<T> input, In<T> weight, In<T> offset,
               OptionalIn<T> bias, OptionalIn<T> mask, Out<T> grad_input, Out<T> grad_weight,
               Out<T> grad_offset, Out<T> grad_bias, Out<T> grad_mask) const {
    using A = Compute<T>;
    const Problem<T> problem(*this, input, weight, offset, mask);
    const int64_t places =
        problem.g.batch * problem.g.offset_groups * problem.g.taps() * problem.pixels();
    const bool uniform = needs[kMask] && mask->size() == 1 && places != 1;
    const Scratch<A> everywhere(uniform ? places : 0);
    const Gradients<T> to{
        needs[kInput] ? grad_input.data : nullptr, needs[kWeight] ? grad_weight.data : nullptr,
        needs[kOffset] ? grad_offset.data : nullptr,
        needs[kMask] && !uniform ? grad_mask.data : nullptr, uniform ? everywhere.data() : nullptr};
    if (grad.size() == 0) {  // no image, or no output: nothing flows back
      fill_zero(grad_input), fill_zero(grad_weight), fill_zero(grad_offset), fill_zero(grad_mask);
    } else if (needs[kInput] || needs[kWeight] || needs[kOffset] || needs[kMask]) {
      Backward<T>(context, problem, grad, to).run();
    }
    if (uniform) grad_mask.data[0] = total<T>(everywhere.data(), grad.size() == 0 ? 0 : places);
    if (needs[kBias]) {
      const Scratch<A> sums(problem.g.out_channels);
      bias_gradient(context, grad, sums.data());
      if (bias->size() == 1) {
        grad_bias.data[0] = total<T>(sums.data(), problem.g.out_channels);
      } else {
        for (int64_t o = 0; o < problem.g.out_channels; ++o) grad_bias.data[o] = store<T>(sums[o]);
      }
    }
  }

 private:
  template <typename T>
  static void fill_zero(Out<T> to) {
    std::fill_n(to.data, to.size(), T{});
  }
};

CUSTOM_OPS_REGISTER(DeformConv2dBackward, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops::deform_conv2d
