// The gradients of deform_conv2d. Each value has one writer that adds in a fixed order, so the
// bits do not depend on the number of threads.
#include "ops/deform_conv2d/sampling.h"
#include "simd/product.h"

namespace custom_ops::deform_conv2d {
namespace {

// Which gradients the caller asked for, in the order of the inputs.
enum Needed { kInput, kWeight, kOffset, kBias, kMask };

// What both passes read, in the compute type.
template <typename T>
struct Backward {
  using A = Compute<T>;

  const Context& context;
  OldProblem<T> problem;
  In<T> grad;
  const A* weights;  // [O][C / groups][taps]
  const std::vector<int64_t>& needs;

  const Geometry<int64_t>& g() const { return problem.g; }
  int64_t group_outputs() const { return g().out_channels / g().groups; }
  int64_t depth() const { return g().group_channels * g().taps(); }
  int64_t channels_per_offset_group() const { return g().channels / g().offset_groups; }

  // The gradient of the output for a tile: [outputs of the group][kOldTile].
  void load_grad(int64_t n, int64_t group, int64_t first, int64_t count, A* tile) const {
    for (int64_t o = 0; o < group_outputs(); ++o) {
      const T* plane =
          grad.data + n * grad.strides[0] + (group * group_outputs() + o) * grad.strides[1];
      for (int64_t p = 0; p < count; ++p) {
        const int64_t row = (first + p) / g().out_width, column = (first + p) % g().out_width;
        tile[o * kOldTile + p] = load(plane[row * grad.strides[2] + column * grad.strides[3]]);
      }
    }
  }

  // The gradient of the columns of some channels of a group: [channel][tap][kOldTile].
  void column_gradient(int64_t channel, int64_t channels, int64_t count, const A* grad_tile,
                       A* columns) const {
    const int64_t group = channel / g().group_channels;
    const A* from =
        weights + group * group_outputs() * depth() + channel % g().group_channels * g().taps();
    std::fill_n(columns, channels * g().taps() * kOldTile, A(0));
    multiply_add(channels * g().taps(), count, group_outputs(), {from, 1, depth()}, grad_tile,
                 kOldTile, columns, kOldTile);
  }
};

// Channels that share their weight group and offset group.
struct Block {
  int64_t first, count;
};

template <typename T>
std::vector<Block> blocks_of(const Backward<T>& call, int64_t begin, int64_t end, int64_t largest) {
  std::vector<Block> blocks;
  const auto rest = [](int64_t at, int64_t size) { return size - at % size; };
  for (int64_t c = begin; c < end;) {
    const int64_t count = std::min({largest, end - c, rest(c, call.g().group_channels),
                                    rest(c, call.channels_per_offset_group())});
    blocks.push_back({c, count});
    c += count;
  }
  return blocks;
}

// The gradients of offset and mask: each tile of pixels sums over the channels.
// offset: [N][offset groups][taps][2][pixels], mask: [N][offset groups][taps][pixels].
// M is T, or the compute type where the mask's gradient is summed further.
template <typename T, typename M>
void position_gradients(const Backward<T>& call, T* grad_offset, M* grad_mask) {
  using A = Compute<T>;
  constexpr int64_t kChannels = 16;
  const OldProblem<T>& problem = call.problem;
  const Geometry<int64_t>& g = call.g();
  const int64_t taps = g.taps(), tiles = problem.tiles(), pixels = problem.pixels();
  call.context.parallel_for(g.batch * g.offset_groups * tiles, 1, [&](int64_t begin, int64_t end) {
    const Scratch<Sample<A>> samples(call.context, taps * kOldTile);
    const Scratch<A> grad_tile(call.context, call.group_outputs() * kOldTile);
    const Scratch<A> columns(call.context, kChannels * taps * kOldTile);
    const Scratch<A> sums(call.context, 3 * taps * kOldTile);  // y, x, mask
    A* const sum_y = sums.data();
    A* const sum_x = sum_y + taps * kOldTile;
    A* const sum_mask = sum_x + taps * kOldTile;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t n = task / tiles / g.offset_groups;
      const int64_t offset_group = task / tiles % g.offset_groups;
      const int64_t first = task % tiles * kOldTile, count = std::min(kOldTile, pixels - first);
      problem.plan(n, offset_group, first, count, samples.data());
      std::fill_n(sums.data(), 3 * taps * kOldTile, A(0));
      const int64_t channel = offset_group * call.channels_per_offset_group();
      int64_t loaded = -1;
      for (const Block& block :
           blocks_of(call, channel, channel + call.channels_per_offset_group(), kChannels)) {
        const int64_t group = block.first / g.group_channels;
        if (group != loaded) call.load_grad(n, group, first, count, grad_tile.data());
        loaded = group;
        call.column_gradient(block.first, block.count, count, grad_tile.data(), columns.data());
        for (int64_t c = 0; c < block.count; ++c) {
          const T* plane = problem.input_channel(n, block.first + c);
          for (int64_t tap = 0; tap < taps; ++tap) {
            for (int64_t p = 0; p < count; ++p) {
              const int64_t i = tap * kOldTile + p;
              const Sample<A>& s = samples[i];
              if (!s.inside) continue;
              const A slope = columns[c * taps * kOldTile + i];
              const A v0 = s.read(plane, 0), v1 = s.read(plane, 1);
              const A v2 = s.read(plane, 2), v3 = s.read(plane, 3);
              sum_y[i] += slope * s.mask * ((1 - s.right) * (v2 - v0) + s.right * (v3 - v1));
              sum_x[i] += slope * s.mask * ((1 - s.down) * (v1 - v0) + s.down * (v3 - v2));
              sum_mask[i] += slope * (s.weight[0] * v0 + s.weight[1] * v1 + s.weight[2] * v2 +
                                      s.weight[3] * v3);
            }
          }
        }
      }
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t plane = (n * g.offset_groups + offset_group) * taps + tap;
        for (int64_t p = 0; p < count; ++p) {
          const int64_t i = tap * kOldTile + p;
          if (call.needs[kOffset]) {
            grad_offset[2 * plane * pixels + first + p] = store<T>(sum_y[i]);
            grad_offset[(2 * plane + 1) * pixels + first + p] = store<T>(sum_x[i]);
          }
          if (call.needs[kMask]) grad_mask[plane * pixels + first + p] = store<M>(sum_mask[i]);
        }
      }
    }
  });
}

// The gradients of input and weight: a block of channels owns its part of both.
template <typename T>
void channel_gradients(const Backward<T>& call, T* grad_input, T* grad_weight) {
  using A = Compute<T>;
  constexpr int64_t kChannels = 8;
  const OldProblem<T>& problem = call.problem;
  const Geometry<int64_t>& g = call.g();
  const int64_t taps = g.taps(), plane = g.height * g.width;
  const std::vector<Block> blocks = blocks_of(call, 0, g.channels, kChannels);
  // The samples' offsets are those of the input, which may be strided; the gradient is row-major.
  OldProblem<T> scatter = problem;
  const int64_t row_major[4] = {g.channels * plane, plane, g.width, 1};
  scatter.input.strides = row_major;

  const auto block_count = static_cast<int64_t>(blocks.size());
  call.context.parallel_for(block_count, 1, [&](int64_t begin, int64_t end) {
    const Scratch<Sample<A>> samples(call.context, taps * kOldTile);
    const Scratch<Sample<A>> targets(call.context, taps * kOldTile);
    const Scratch<A> grad_tile(call.context, call.group_outputs() * kOldTile);
    const Scratch<A> columns(call.context, kChannels * taps * kOldTile);
    const Scratch<A> image(call.context, call.needs[kInput] ? kChannels * plane : 0);
    const Scratch<A> weight_sum(call.context, call.group_outputs() * kChannels * taps);
    for (int64_t b = begin; b < end; ++b) {
      const Block block = blocks[b];
      const int64_t group = block.first / g.group_channels, rows = block.count * taps;
      const int64_t offset_group = block.first / call.channels_per_offset_group();
      std::fill_n(weight_sum.data(), call.group_outputs() * rows, A(0));
      for (int64_t n = 0; n < g.batch; ++n) {
        if (call.needs[kInput]) std::fill_n(image.data(), block.count * plane, A(0));
        for (int64_t first = 0; first < problem.pixels(); first += kOldTile) {
          const int64_t count = std::min(kOldTile, problem.pixels() - first);
          call.load_grad(n, group, first, count, grad_tile.data());
          if (call.needs[kInput]) {
            scatter.plan(n, offset_group, first, count, targets.data());
            call.column_gradient(block.first, block.count, count, grad_tile.data(), columns.data());
            for (int64_t row = 0; row < rows; ++row) {
              A* const to = image.data() + row / taps * plane;
              for (int64_t p = 0; p < count; ++p) {
                const Sample<A>& s = targets[row % taps * kOldTile + p];
                if (!s.inside) continue;
                const A slope = s.mask * columns[row * kOldTile + p];
                for (int corner = 0; corner < 4; ++corner) {
                  if (s.at[corner] != Sample<A>::kOutside) {
                    to[s.at[corner]] += slope * s.weight[corner];
                  }
                }
              }
            }
          }
          if (call.needs[kWeight]) {
            problem.plan(n, offset_group, first, count, samples.data());
            for (int64_t row = 0; row < rows; ++row) {
              const T* from = problem.input_channel(n, block.first + row / taps);
              for (int64_t p = 0; p < count; ++p) {
                const Sample<A>& s = samples[row % taps * kOldTile + p];
                columns[row * kOldTile + p] = s.inside ? s.mask * s.value(from) : A(0);
              }
            }
            multiply_add_transposed(call.group_outputs(), rows, count, grad_tile.data(), kOldTile,
                                    columns.data(), kOldTile, weight_sum.data(), rows);
          }
        }
        if (call.needs[kInput]) {
          T* const to = grad_input + (n * g.channels + block.first) * plane;
          for (int64_t i = 0; i < block.count * plane; ++i) to[i] = store<T>(image[i]);
        }
      }
      if (call.needs[kWeight]) {
        for (int64_t o = 0; o < call.group_outputs(); ++o) {
          T* const to = grad_weight + (group * call.group_outputs() + o) * call.depth() +
                        block.first % g.group_channels * taps;
          for (int64_t i = 0; i < rows; ++i) to[i] = store<T>(weight_sum[o * rows + i]);
        }
      }
    }
  });
}

// The sum of the output's gradient over all images and pixels, for each output channel.
template <typename T>
void bias_gradient(const Backward<T>& call, Compute<T>* sums) {
  using A = Compute<T>;
  const Dims shape = call.grad.shape, strides = call.grad.strides;
  call.context.parallel_for(shape[1], 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      A total = 0;
      for (int64_t n = 0; n < shape[0]; ++n) {
        for (int64_t y = 0; y < shape[2]; ++y) {
          A row = 0;
          for (int64_t x = 0; x < shape[3]; ++x) {
            row += load(
                call.grad.data[n * strides[0] + o * strides[1] + y * strides[2] + x * strides[3]]);
          }
          total += row;
        }
      }
      sums[o] = total;
    }
  });
}

// Adds up what a broadcast input of one element received everywhere.
template <typename T, typename Value>
T total(const Value* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(load(values[i]));
  return store<T>(static_cast<Compute<T>>(sum));
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
    const Scratch<A> weights(context, weight.size());
    copy_weight(weight, weights.data());
    const Backward<T> call{context,
                           {input, offset, mask, *this, geometry_of(*this, input, weight, offset)},
                           grad,
                           weights.data(),
                           needs};
    if (needs[kInput] || needs[kWeight]) channel_gradients(call, grad_input.data, grad_weight.data);
    if (needs[kOffset] || needs[kMask]) {
      const int64_t places =
          call.g().batch * call.g().offset_groups * call.g().taps() * call.problem.pixels();
      const bool broadcast = needs[kMask] && mask->size() == 1 && places != 1;
      if (broadcast) {
        const Scratch<A> everywhere(context, places);
        position_gradients(call, grad_offset.data, everywhere.data());
        grad_mask.data[0] = total<T>(everywhere.data(), places);
      } else {
        position_gradients(call, grad_offset.data, grad_mask.data);
      }
    }
    if (needs[kBias]) {
      const Scratch<A> sums(context, call.g().out_channels);
      bias_gradient(call, sums.data());
      if (bias->size() == 1) {
        grad_bias.data[0] = total<T>(sums.data(), call.g().out_channels);
      } else {
        for (int64_t o = 0; o < call.g().out_channels; ++o) grad_bias.data[o] = store<T>(sums[o]);
      }
    }
  }
};

CUSTOM_OPS_REGISTER(DeformConv2dBackward, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops::deform_conv2d
