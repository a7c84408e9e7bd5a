// The gradients of deform_conv2d. Each value has one writer that adds in an order that follows
// from the shapes alone, so the bits do not depend on the number of threads.
//
// For some taps of one chunk of channels and each tile of pixels: a product gives the gradient of
// the panel, one pass over it adds to the gradient of the input, takes the products that give the
// gradients of offset and mask and puts the panel itself in its place, and a second product adds
// to the gradient of the weight.
#include "ops/deform_conv2d/problem.h"

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

// The outputs; null where not asked for.
template <typename T>
struct Gradients {
  using A = Compute<T>;
  T* input;
  T* weight;
  T* offset;        // [N][offset group][tap][y, x][pixel]
  T* mask;          // [N][offset group][tap][pixel]
  A* uniform_mask;  // instead of mask where the mask is one element: to be added up
};

template <typename T>
class Backward {
 public:
  using A = Compute<T>;

  Backward(const Context& context, const Problem<T>& problem, In<T> grad, Gradients<T> gradients)
      : context_(context),
        problem_(problem),
        grad_(grad),
        to_(gradients),
        weight_(context, problem),
        needs_position_(to_.offset != nullptr || to_.mask != nullptr ||
                        to_.uniform_mask != nullptr),
        group_outputs_(problem.is_depthwise() ? 1 : problem.g.out_channels / problem.g.groups),
        bands_(count_bands()),
        chunked_(context, problem.chunked_size()),
        chunked_grad_(context, to_.input ? problem.chunked_size() : 0),
        sums_(context, count_sums()),
        weight_sums_(context, to_.weight && bands_ > 1 ? bands_ * problem.weight.size() : 0) {}

  void run() {
    fill_chunks(context_, problem_, chunked_.data());
    if (to_.input) zero_chunked_grad();
    const auto chunks = static_cast<int64_t>(problem_.chunks.size());
    for (const Taps& taps : problem_.tap_groups) {
      context_.parallel_for(chunks * bands_, 1, [&](int64_t begin, int64_t end) {
        Worker worker(*this);
        for (int64_t task = begin; task < end; ++task) {
          worker.run(problem_.chunks[task % chunks], taps, task / chunks);
        }
      });
      if (needs_position_) add_positions(taps);
    }
    if (to_.weight && bands_ > 1) add_weights();
    if (to_.input && problem_.input.size() > 0) empty_chunked_grad();
  }

 private:
  // What a thread needs to work on one chunk.
  class Worker {
   public:
    explicit Worker(const Backward& call)
        : call_(call),
          problem_(call.problem_),
          kernels_(kernels<T>()),
          planner_(call.context_, problem_),
          panel_(call.context_, (kTile + kSlackRows) * kPanelStep),
          grad_(call.context_, (grad_rows() + kSlackRows) * kTile),
          by_pixel_(call.context_, problem_.is_depthwise() ? kTile * kChunk : 0),
          weight_(call.context_, call.group_outputs_ * (kPanelStep + kernels_.columns)),
          weight_grad_(call.context_, (call.group_outputs_ + kSlackRows) * kPanelStep),
          dots_(call.context_, call.needs_position_ ? problem_.most_taps() * kTile * 4 : 0),
          rows_(call.context_, 3 * kTile) {
      std::fill_n(grad_.data() + grad_rows() * kTile, kSlackRows * kTile, A(0));
    }

    void run(const Chunk& chunk, const Taps& taps, int64_t band) {
      const bool depthwise = problem_.is_depthwise();
      const int64_t depth = taps.count * chunk.channels;
      pack_weight(chunk, taps);
      const int64_t rows = depthwise ? 1 : call_.group_outputs_;
      std::fill_n(weight_grad_.data(), (rows + kSlackRows) * kPanelStep, A(0));
      const int64_t pixels = problem_.pixels(), images = problem_.g.batch;
      const int64_t size = tile_size<T>(pixels, ceil_divide(pixels, kTile));
      for (int64_t n = images * band / call_.bands_; n < images * (band + 1) / call_.bands_; ++n) {
        for (int64_t first = 0; first < pixels; first += size) {
          const Tile tile{n, first, std::min(size, pixels - first)};
          planner_.start(tile);
          if (depthwise) {
            run_depthwise_tile(chunk, taps, tile);
          } else {
            run_tile(chunk, taps, depth, tile);
          }
        }
      }
      if (call_.to_.weight) write_weight(chunk, taps, band);
    }

   private:
    int64_t grad_rows() const { return problem_.is_depthwise() ? kChunk : call_.group_outputs_; }

    // Where the weights of a chunk's taps start for an output of its group. Outputs are `step`
    // apart; for depthwise each channel is an output.
    int64_t place_of_output(const Chunk& chunk, const Taps& taps, int64_t o, int64_t step) const {
      if (problem_.is_depthwise()) return chunk.first * step + taps.first;
      return (chunk.group * call_.group_outputs_ + o) * step + taps.first +
             (chunk.first - chunk.group * problem_.g.group_channels) * problem_.g.taps();
    }

    // [k / columns][output][k % columns], k being (tap, channel); for depthwise [k].
    void pack_weight(const Chunk& chunk, const Taps& taps) {
      const bool depthwise = problem_.is_depthwise();
      const int64_t columns = depthwise ? kPanelStep : kernels_.columns;
      const int64_t outputs = call_.group_outputs_, depth = taps.count * chunk.channels;
      const int64_t step = call_.weight_.step();
      A turned[kPanelStep];
      std::fill_n(turned, kPanelStep, A(0));
      for (int64_t o = 0; o < outputs; ++o) {
        kernels_.turn_weights(call_.weight_.data() + place_of_output(chunk, taps, o, step),
                              call_.weight_.end(), depthwise ? step : problem_.g.taps(), taps.count,
                              chunk.channels, turned);
        for (int64_t first = 0; first < depth; first += columns) {
          std::copy_n(turned + first, columns, weight_.data() + first * outputs + o * columns);
        }
      }
    }

    void write_weight(const Chunk& chunk, const Taps& taps, int64_t band) {
      const int64_t all = problem_.g.taps(), step = problem_.g.group_channels * all;
      A* const sums = call_.weight_sums_.data() + band * problem_.weight.size();
      for (int64_t o = 0; o < call_.group_outputs_; ++o) {
        const A* const from = weight_grad_.data() + o * kPanelStep;
        const int64_t place = place_of_output(chunk, taps, o, step);
        if (call_.bands_ > 1) {
          kernels<A>().turn_weights_back(from, taps.count, chunk.channels, sums + place, all);
        } else {
          kernels_.turn_weights_back(from, taps.count, chunk.channels, call_.to_.weight + place,
                                     all);
        }
      }
    }

    void load_grad(int64_t first, int64_t count, const Tile& tile) {
      for (int64_t o = 0; o < count; ++o) {
        A* const row = grad_.data() + o * kTile;
        copy_pixels(call_.grad_, tile, first + o, row);
        std::fill(row + tile.count, row + kTile, A(0));
      }
    }

    void run_tile(const Chunk& chunk, const Taps& taps, int64_t depth, const Tile& tile) {
      load_grad(chunk.group * call_.group_outputs_, call_.group_outputs_, tile);
      const Plan<A>* plan = planner_.of(chunk.offset_group, taps);
      const Piece piece{chunk.channels, taps.count, 0};
      const int64_t row = problem_.frame.row();
      const T* const from = chunk_of(call_.chunked_, tile, chunk);
      if (call_.to_.input || call_.needs_position_) {
        kernels_.multiply_grad(tile.count, depth, call_.group_outputs_, grad_.data(),
                               weight_.data(), panel_.data());
        kernels_.sample_back(from, row, plan, piece, tile.count, panel_.data(),
                             grad_of(tile, chunk), dots());
      } else {
        kernels_.sample(from, row, plan, piece, tile.count, panel_.data());
      }
      if (call_.to_.weight) {
        kernels_.multiply_weight(tile.count, depth, call_.group_outputs_, grad_.data(),
                                 panel_.data(), weight_grad_.data());
      }
      if (call_.needs_position_) write_positions(chunk, taps, tile, plan);
    }

    void run_depthwise_tile(const Chunk& chunk, const Taps& taps, const Tile& tile) {
      load_grad(chunk.first, chunk.channels, tile);
      for (int64_t p = 0; p < tile.count; ++p) {
        for (int64_t c = 0; c < chunk.channels; ++c) {
          by_pixel_[p * chunk.channels + c] = grad_[c * kTile + p];
        }
      }
      const Plan<A>* plan = planner_.of(chunk.offset_group, taps);
      const T* const from = chunk_of(call_.chunked_, tile, chunk);
      kernels_.sample_depthwise_back(from, problem_.frame.row(), plan, chunk.channels, taps.count,
                                     tile.count, by_pixel_.data(), weight_.data(),
                                     weight_grad_.data(), grad_of(tile, chunk), dots());
      if (call_.needs_position_) write_positions(chunk, taps, tile, plan);
    }

    template <typename E>
    E* chunk_of(const Scratch<E>& chunked, const Tile& tile, const Chunk& chunk) const {
      return chunked.data() + problem_.place(tile.image, chunk);
    }
    A* grad_of(const Tile& tile, const Chunk& chunk) const {
      return call_.to_.input ? chunk_of(call_.chunked_grad_, tile, chunk) : nullptr;
    }
    A* dots() const { return call_.needs_position_ ? dots_.data() : nullptr; }

    // Gradients of offset and mask: to the outputs where the chunk is alone in its offset group.
    void write_positions(const Chunk& chunk, const Taps& taps, const Tile& tile,
                         const Plan<A>* plan) {
      const auto outside = static_cast<int32_t>(problem_.frame.outside());
      const bool alone = call_.is_alone(chunk);
      for (int64_t i = 0; i < taps.count; ++i) {
        A* rows[3];
        for (int64_t part = 0; part < 3; ++part) {
          rows[part] = alone ? rows_.data() + part * kTile
                             : call_.sum_row(chunk, i, part, tile.image) + tile.first;
        }
        kernels_.position(plan[i], outside, dots_.data() + i * kTile * 4, tile.count, rows[0],
                          rows[1], rows[2]);
        if (alone) call_.write_position(chunk.offset_group, taps.first + i, tile, rows);
      }
    }

    const Backward& call_;
    const Problem<T>& problem_;
    const Kernels<T>& kernels_;
    Planner<T> planner_;
    const Scratch<A> panel_;
    const Scratch<A> grad_;         // the output's gradient: [output][kTile]
    const Scratch<A> by_pixel_;     // depthwise: [pixel][channel]
    const Scratch<A> weight_;       // packed
    const Scratch<A> weight_grad_;  // [output][kPanelStep]
    const Scratch<A> dots_;         // [tap][kTile][4]
    const Scratch<A> rows_;
  };

  // Bands of images share the work where there are fewer chunks than cores want; each has a
  // gradient of the weight of its own.
  int64_t count_bands() const {
    constexpr int64_t kTasks = 16, kElements = 1 << 21;
    const auto chunks = static_cast<int64_t>(problem_.chunks.size());
    const int64_t most = std::max<int64_t>(kElements / problem_.weight.size(), 2);
    return std::min({problem_.g.batch, ceil_divide(kTasks, chunks), most});
  }

  // Rows of offset and mask gradients that chunks of one offset group have yet to add up.
  bool is_alone(const Chunk& chunk) const {
    return problem_.g.channels / problem_.g.offset_groups == chunk.channels;
  }
  int64_t count_sums() const {
    if (!needs_position_ || is_alone(problem_.chunks[0])) return 0;
    return static_cast<int64_t>(problem_.chunks.size()) * problem_.most_taps() * 3 *
           problem_.g.batch * problem_.pixels();
  }
  A* sum_row(const Chunk& chunk, int64_t tap, int64_t part, int64_t n) const {
    const int64_t index = &chunk - problem_.chunks.data();
    const int64_t row = (index * problem_.most_taps() + tap) * 3 + part;
    return sums_.data() + (row * problem_.g.batch + n) * problem_.pixels();
  }

  void add_positions(const Taps& taps) const {
    if (is_alone(problem_.chunks[0])) return;
    const int64_t groups = problem_.g.offset_groups, pixels = problem_.pixels();
    context_.parallel_for(
        problem_.g.batch * groups * taps.count, 1, [&](int64_t begin, int64_t end) {
          const Scratch<A> totals(context_, 3 * pixels);
          for (int64_t task = begin; task < end; ++task) {
            const int64_t n = task / taps.count / groups, group = task / taps.count % groups;
            const int64_t tap = task % taps.count;
            std::fill_n(totals.data(), 3 * pixels, A(0));
            for (const Chunk& chunk : problem_.chunks) {
              if (chunk.offset_group != group) continue;
              for (int64_t part = 0; part < 3; ++part) {
                const A* const row = sum_row(chunk, tap, part, n);
                A* const to = totals.data() + part * pixels;
                for (int64_t p = 0; p < pixels; ++p) to[p] += row[p];
              }
            }
            A* const rows[3] = {totals.data(), totals.data() + pixels, totals.data() + 2 * pixels};
            write_position(group, taps.first + tap, {n, 0, pixels}, rows);
          }
        });
  }

  void write_position(int64_t offset_group, int64_t tap, const Tile& tile,
                      A* const (&rows)[3]) const {
    const int64_t pixels = problem_.pixels();
    const int64_t plane =
        (tile.image * problem_.g.offset_groups + offset_group) * problem_.g.taps() + tap;
    const auto write = [&](auto* to, int64_t row, const A* from) {
      using E = std::remove_pointer_t<decltype(to)>;
      if (to == nullptr) return;
      for (int64_t p = 0; p < tile.count; ++p) {
        to[row * pixels + tile.first + p] = store<E>(from[p]);
      }
    };
    write(to_.offset, 2 * plane, rows[0]);
    write(to_.offset, 2 * plane + 1, rows[1]);
    write(to_.mask, plane, rows[2]);
    write(to_.uniform_mask, plane, rows[2]);
  }

  void add_weights() const {
    const int64_t size = problem_.weight.size();
    context_.parallel_for(size, 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        A sum = 0;
        for (int64_t band = 0; band < bands_; ++band) sum += weight_sums_[band * size + i];
        to_.weight[i] = store<T>(sum);
      }
    });
  }

  void zero_chunked_grad() const {
    const int64_t size = problem_.chunked_size();
    context_.parallel_for(size, 1 << 16, [&](int64_t begin, int64_t end) {
      std::fill(chunked_grad_.data() + begin, chunked_grad_.data() + end, A(0));
    });
  }

  void empty_chunked_grad() const {
    const Geometry<int64_t>& g = problem_.g;
    const int64_t plane = g.height * g.width;
    for_each_band(
        context_, problem_, [&](int64_t n, const Chunk& chunk, int64_t first_row, int64_t end_row) {
          const A* const from = chunked_grad_.data() + problem_.place(n, chunk) +
                                (problem_.frame.row() + 1) * chunk.channels;
          kernels<T>().empty(from, g.width, first_row * g.width, end_row * g.width, chunk.channels,
                             to_.input + (n * g.channels + chunk.first) * plane, plane);
        });
  }

  const Context& context_;
  const Problem<T>& problem_;
  const In<T> grad_;
  const Gradients<T> to_;
  const DenseWeight<T> weight_;
  const bool needs_position_;
  const int64_t group_outputs_, bands_;
  const Scratch<T> chunked_;
  const Scratch<A> chunked_grad_;
  const Scratch<A> sums_;         // [chunk][tap][y, x, mask][N][pixel]
  const Scratch<A> weight_sums_;  // [band], each like the weight
};

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
    const Scratch<A> everywhere(context, uniform ? places : 0);
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
      const Scratch<A> sums(context, problem.g.out_channels);
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
