// deform_conv2d: deformable convolution, v1 and v2 (https://arxiv.org/abs/1811.11168, eq. 1).
//
// For each tile of pixels: sample some taps of some channels into a panel, multiply it by their
// slice of the weight, and add.
#include "ops/deform_conv2d/weights.h"

namespace custom_ops::deform_conv2d {
namespace {

template <typename T>
Compute<T> bias_at(const OptionalIn<T>& bias, int64_t channel) {
  if (!bias) return 0;
  return load(bias->data[bias->size() == 1 ? 0 : channel * bias->strides[0]]);
}

template <typename T>
class Forward {
 public:
  using A = Compute<T>;

  Forward(const Context& context, const Problem<T>& problem, const PackedWeights<T>& weights,
          OptionalIn<T> bias, Out<T> output)
      : context_(context),
        problem_(problem),
        weights_(weights),
        output_(output),
        columns_(weights.columns()),
        group_outputs_(weights.group_outputs()),
        panels_(weights.panels()),
        start_(problem.g.groups * panels_ * columns_) {
    for (int64_t i = 0; i < problem.g.groups * panels_ * columns_; ++i) {
      const int64_t output_of_group = i % (panels_ * columns_);
      const int64_t channel = i / (panels_ * columns_) * group_outputs_ + output_of_group;
      start_[i] = output_of_group < group_outputs_ ? bias_at(bias, channel) : A(0);
    }
  }

  void run(const T* chunked) const {
    const int64_t images = problem_.g.batch, wanted = context_.tasks();
    int64_t tiles = ceil_divide(problem_.pixels(), kTile), parts = 1;
    if (images * tiles < wanted) {
      // Few pixels: tasks share them and take some of the outputs each.
      parts = std::clamp<int64_t>(problem_.g.out_channels / kManyOutputs, 1,
                                  ceil_divide(wanted, images * tiles));
    }
    // As many tiles as can be shared evenly, as far as that does not make them small.
    int64_t even = tiles;
    while (images * parts * even % wanted != 0 && images * parts * even < 8 * wanted) ++even;
    tiles = std::max(tiles, std::min(even, problem_.pixels() / kSmallTile));
    const int64_t size = tile_size<T>(problem_.pixels(), tiles);
    tiles = ceil_divide(problem_.pixels(), size);
    context_.parallel_for(images * tiles * parts, 1, [&](int64_t begin, int64_t end) {
      const Scratch<A> panel((size + kSlackRows) * kPanelStep);
      const Scratch<A> sums((panels_ + 1) * (size + kSlackRows) * columns_);
      Planner<T> planner(problem_);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task / parts % tiles * size, all = problem_.g.groups * panels_;
        const Tile tile{task / parts / tiles, first, std::min(size, problem_.pixels() - first)};
        if (tile.count <= 0) continue;
        planner.start(tile);
        // The product reads whole blocks of rows.
        std::fill_n(panel.data() + tile.count * kPanelStep, kSlackRows * kPanelStep, A(0));
        compute(tile, (size + kSlackRows) * columns_, all * (task % parts) / parts,
                all * (task % parts + 1) / parts, chunked, planner, panel.data(), sums.data());
      }
    });
  }

 private:
  static constexpr int64_t kManyOutputs = 128;
  static constexpr int64_t kSmallTile = 48;

  // The outputs of a tile in panels [begin, end) of all.
  void compute(const Tile& tile, int64_t sums_size, int64_t begin, int64_t end, const T* chunked,
               Planner<T>& planner, A* panel, A* sums) const {
    const Kernels<T>& k = kernels<T>();
    const std::vector<Block>& blocks = weights_.blocks();
    for (size_t b = 0; b < blocks.size(); ++b) {
      const Block& block = blocks[b];
      const int64_t first = std::max(begin - block.group * panels_, int64_t(0));
      const int64_t last = std::min(end - block.group * panels_, panels_);
      if (first >= last) continue;
      for (const Block::Part& part : block.parts) {
        k.sample(chunked + problem_.place(tile.image, part.chunk), problem_.frame.row(),
                 planner.of(part.chunk.offset_group, block.taps), part.piece, tile.count, panel);
      }
      const bool is_first = b == 0 || blocks[b - 1].group != block.group;
      const bool is_last = b + 1 == blocks.size() || blocks[b + 1].group != block.group;
      const A* const weights = weights_.at(b);
      const A* const following =
          is_last ? nullptr : weights_.at(b + 1) + first * columns_ * blocks[b + 1].depth;
      for (int64_t i = first; i < last; ++i) {
        A* const sum = sums + (i - first) * sums_size;
        const int64_t size = columns_ * block.depth;
        k.multiply(tile.count, block.depth, panel, weights + i * size, sum,
                   is_first ? start_.data() + (block.group * panels_ + i) * columns_ : nullptr,
                   i + 1 < last ? weights + (i + 1) * size : following);
        if (!is_last) continue;
        const int64_t output = block.group * group_outputs_ + i * columns_;
        k.finish(sum, columns_, tile.count, std::min(columns_, group_outputs_ - i * columns_),
                 output_.data +
                     (tile.image * problem_.g.out_channels + output) * problem_.pixels() +
                     tile.first,
                 problem_.pixels());
      }
    }
  }

  const Context& context_;
  const Problem<T>& problem_;
  const PackedWeights<T>& weights_;
  const Out<T> output_;
  const int64_t columns_, group_outputs_, panels_;
  const Scratch<A> start_;  // the bias of each panel
};

// A group for each channel: no product, each sample is added at once.
template <typename T>
void run_depthwise(const Context& context, const Problem<T>& problem, OptionalIn<T> bias,
                   const T* chunked, Out<T> output) {
  using A = Compute<T>;
  const int64_t taps = problem.g.taps(), pixels = problem.pixels();
  const Scratch<A> weights(problem.g.channels * taps);  // [chunk][tap][channel]
  for (const Chunk& chunk : problem.chunks) {
    for (int64_t i = 0; i < taps * chunk.channels; ++i) {
      weights[chunk.first * taps + i] =
          load(problem.weight_at(chunk.first + i % chunk.channels, 0, i / chunk.channels));
    }
  }
  const int64_t tiles = ceil_divide(pixels, kTile);
  context.parallel_for(problem.g.batch * tiles, 1, [&](int64_t begin, int64_t end) {
    const Scratch<A> sums((kTile + kSlackRows) * kChunk + kSlack);
    Planner<T> planner(problem);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % tiles * kTile;
      const Tile tile{task / tiles, first, std::min(kTile, pixels - first)};
      planner.start(tile);
      for (const Chunk& chunk : problem.chunks) {
        for (int64_t i = 0; i < tile.count * chunk.channels; ++i) {
          sums[i] = bias_at(bias, chunk.first + i % chunk.channels);
        }
        for (const Taps& group : problem.tap_groups) {
          kernels<T>().sample_depthwise(
              chunked + problem.place(tile.image, chunk), problem.frame.row(),
              planner.of(chunk.offset_group, group), chunk.channels, group.count, tile.count,
              weights.data() + chunk.first * taps + group.first * chunk.channels, sums.data());
        }
        kernels<T>().finish(
            sums.data(), chunk.channels, tile.count, chunk.channels,
            output.data + (tile.image * problem.g.channels + chunk.first) * pixels + first, pixels);
      }
    }
  });
}

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

  template <typename T>
  void compute(const Context& context, In<T> input, In<T> weight, In<T> offset, OptionalIn<T> bias,
               OptionalIn<T> mask, Out<T> output) const {
    if (output.size() == 0) return;
    const Problem<T> problem(*this, input, weight, offset, mask);
    const Scratch<T> chunked(problem.chunked_size());
    fill_chunks(context, problem, chunked.data());
    if (problem.is_depthwise()) {
      run_depthwise(context, problem, bias, chunked.data(), output);
    } else if (kept_weights_) {
      const auto weights = kept_weights_->of(context, problem);
      Forward<T>(context, problem, *weights, bias, output).run(chunked.data());
    } else {
      PackedWeights<T> weights(problem);
      const Scratch<Compute<T>> memory(weights.size());
      weights.pack(context, problem, memory.data());
      Forward<T>(context, problem, weights, bias, output).run(chunked.data());
    }
  }

  void set_constant_inputs(std::span<const bool> constant) {
    kept_weights_ = constant[1] ? std::make_shared<KeptWeights>() : nullptr;
  }

 private:
  std::shared_ptr<KeptWeights> kept_weights_;  // null where the weight may change
};

CUSTOM_OPS_REGISTER(DeformConv2d, float, double, Half, BFloat16)

}  // namespace
}  // namespace custom_ops::deform_conv2d
