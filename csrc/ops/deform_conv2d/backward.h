// The gradients of deform_conv2d but that of the bias. Each value has one writer that adds in an
// order that follows from the shapes alone, so the bits do not depend on the number of threads.
//
// For some taps of one chunk of channels and each tile of pixels: a product gives the gradient of
// the panel, one pass over it adds to the gradient of the input, takes the products that give the
// gradients of offset and mask and puts the panel itself in its place, and a second product adds
// to the gradient of the weight.
#pragma once

#include <algorithm>
#include <type_traits>

#include "ops/deform_conv2d/problem.h"

namespace custom_ops::deform_conv2d {

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
        weight_(problem),
        needs_position_(to_.offset != nullptr || to_.mask != nullptr ||
                        to_.uniform_mask != nullptr),
        group_outputs_(problem.is_depthwise() ? 1 : problem.g.out_channels / problem.g.groups),
        bands_(count_bands()),
        chunked_(problem.chunked_size()),
        chunked_grad_(to_.input ? problem.chunked_size() : 0),
        sums_(count_sums()),
        weight_sums_(to_.weight && bands_ > 1 ? bands_ * problem.weight.size() : 0) {}

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
          planner_(problem_),
          panel_((kTile + kSlackRows) * kPanelStep),
          grad_((grad_rows() + kSlackRows) * kTile),
          by_pixel_(problem_.is_depthwise() ? kTile * kChunk : 0),
          weight_(call.group_outputs_ * (kPanelStep + kernels_.columns)),
          weight_grad_((call.group_outputs_ + kSlackRows) * kPanelStep),
          dots_(call.needs_position_ ? problem_.most_taps() * kTile * 4 : 0),
          rows_(3 * kTile) {
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
          const Scratch<A> totals(3 * pixels);
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

}  // namespace custom_ops::deform_conv2d
