// What one call of deformable convolution computes on: the input in chunks of channels, and where
// the taps of a tile of pixels lie. Shared by forward and backward.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/deform_conv2d/geometry.h"
#include "ops/deform_conv2d/kernels.h"

namespace custom_ops::deform_conv2d {

inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Consecutive channels of the input that share their weight group and offset group.
struct Chunk {
  int64_t first, channels, group, offset_group;
};

// Consecutive taps.
struct Taps {
  int64_t first, count;
};

// Consecutive pixels of one image.
struct Tile {
  int64_t image, first, count;
};

// The size of tiles, of which `tiles` or a few less cover so many pixels.
template <typename T>
int64_t tile_size(int64_t pixels, int64_t tiles) {
  const int64_t rows = kernels<T>().rows, size = ceil_divide(pixels, tiles);
  return std::min(ceil_divide(size, rows), kTile / rows) * rows;
}

template <typename T>
struct Problem {
  using A = Compute<T>;

  Problem(const Attributes& attributes, In<T> input, In<T> weight, In<T> offset, OptionalIn<T> mask)
      : attributes(attributes), input(input), weight(weight), offset(offset), mask(mask) {
    const auto shape = [](Dims dims) { return Shape<int64_t>({dims.begin(), dims.end()}); };
    g = attributes.check<int64_t>(shape(input.shape), shape(weight.shape), shape(offset.shape),
                                  nullptr, nullptr);
    frame = {g.height, g.width};
    if (frame.pixels() > std::numeric_limits<int32_t>::max()) {
      throw std::length_error("deform_conv2d: input must have fewer than 2^31 pixels an image");
    }
    const int64_t per_offset_group = g.channels / g.offset_groups;
    const int64_t per_group = is_depthwise() ? g.channels : g.group_channels;
    int64_t widest = 1;
    for (int64_t c = 0; c < g.channels; c += chunks.back().channels) {
      const int64_t count = std::min({kChunk, per_group - c % per_group,
                                      per_offset_group - c % per_offset_group, g.channels - c});
      chunks.push_back({c, count, c / per_group, c / per_offset_group});
      widest = std::max(widest, count);
    }
    // As even as can be, and each fits into a panel.
    const int64_t parts = ceil_divide(g.taps(), kDepth / widest);
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t first = g.taps() * i / parts;
      tap_groups.push_back({first, g.taps() * (i + 1) / parts - first});
    }
  }

  int64_t pixels() const { return g.out_height * g.out_width; }
  int64_t most_taps() const { return ceil_divide(g.taps(), int64_t(tap_groups.size())); }
  // One output for each input channel.
  bool is_depthwise() const { return g.group_channels == 1 && g.out_channels == g.groups; }

  // Elements of the input in chunks, and where a chunk starts.
  int64_t chunked_size() const { return g.batch * g.channels * frame.pixels() + kSlack; }
  int64_t place(int64_t n, const Chunk& chunk) const {
    return (n * g.channels + chunk.first) * frame.pixels();
  }

  const T& weight_at(int64_t output, int64_t channel, int64_t tap) const {
    return weight
        .data[output * weight.strides[0] + channel * weight.strides[1] +
              tap / g.kernel_width * weight.strides[2] + tap % g.kernel_width * weight.strides[3]];
  }

  Attributes attributes;
  In<T> input, weight, offset;
  OptionalIn<T> mask;
  Geometry<int64_t> g;
  Frame frame;
  std::vector<Chunk> chunks;
  std::vector<Taps> tap_groups;
};

// The weights of each output in order [channel][tap] without gaps: a copy where they are not.
template <typename T>
class DenseWeight {
 public:
  explicit DenseWeight(const Problem<T>& problem)
      : is_dense_(is_dense(problem)), copy_(is_dense_ ? 0 : problem.weight.size()) {
    data_ = is_dense_ ? problem.weight.data : copy_.data();
    step_ = is_dense_ ? problem.weight.strides[0] : problem.g.group_channels * problem.g.taps();
    end_ =
        data_ + (problem.g.out_channels - 1) * step_ + problem.g.group_channels * problem.g.taps();
    if (is_dense_) return;
    T* to = copy_.data();
    for (int64_t o = 0; o < problem.g.out_channels; ++o) {
      for (int64_t c = 0; c < problem.g.group_channels; ++c) {
        for (int64_t tap = 0; tap < problem.g.taps(); ++tap) *to++ = problem.weight_at(o, c, tap);
      }
    }
  }

  const T* data() const { return data_; }
  const T* end() const { return end_; }
  int64_t step() const { return step_; }  // from an output to the next

 private:
  static bool is_dense(const Problem<T>& problem) {
    const Dims strides = problem.weight.strides;
    const Geometry<int64_t>& g = problem.g;
    return (strides[3] == 1 || g.kernel_width == 1) &&
           (strides[2] == g.kernel_width || g.kernel_height == 1) &&
           (strides[1] == g.taps() || g.group_channels == 1);
  }

  const bool is_dense_;
  const Scratch<T> copy_;
  const T* data_;
  const T* end_;
  int64_t step_;
};

// Calls function(n, chunk, first row, end row) in parallel, on bands of rows that cover the input.
template <typename T, typename Function>
void for_each_band(const Context& context, const Problem<T>& problem, const Function& function) {
  constexpr int64_t kElements = 1 << 15;
  const Geometry<int64_t>& g = problem.g;
  const int64_t rows = std::max<int64_t>(kElements / (std::max<int64_t>(g.width, 1) * kChunk), 1);
  const int64_t bands = std::max<int64_t>(ceil_divide(g.height, rows), 1);
  const auto chunks = static_cast<int64_t>(problem.chunks.size());
  const int64_t size = std::min(rows, g.height) * g.width * kChunk;
  const int64_t grain = std::max<int64_t>(kElements / std::max<int64_t>(size, 1), 1);
  context.parallel_for(g.batch * chunks * bands, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t band = task % bands * rows;
      function(task / bands / chunks, problem.chunks[task / bands % chunks], band,
               std::min(band + rows, g.height));
    }
  });
}

// Copies the input into chunks.
template <typename T>
void fill_chunks(const Context& context, const Problem<T>& problem, T* chunked) {
  const Dims strides = problem.input.strides;
  const int64_t width = problem.g.width, row = problem.frame.row();
  const bool flat = strides[2] == width * strides[3];
  const auto fill = kernels<T>().fill;
  for_each_band(
      context, problem, [&](int64_t n, const Chunk& chunk, int64_t first_row, int64_t end_row) {
        const int64_t channels = chunk.channels;
        T* const image = chunked + problem.place(n, chunk);
        T* const inside = image + (row + 1) * channels;
        const T* const from = problem.input.data + n * strides[0] + chunk.first * strides[1];
        const auto zero = [&](int64_t pixel, int64_t count) {
          std::memset(static_cast<void*>(image + pixel * channels), 0,
                      count * channels * sizeof(T));
        };
        if (first_row == 0) zero(0, row);
        if (end_row == problem.g.height) zero((end_row + 1) * row, row + 2);
        for (int64_t y = first_row; y < end_row; ++y) {
          zero((y + 1) * row, 1);
          zero((y + 2) * row - 1, 1);
          if (flat || width == 0) continue;
          fill(from + y * strides[2], strides[1], strides[3], width, 0, width, channels,
               inside + y * row * channels);
        }
        if (flat && width > 0) {
          fill(from, strides[1], strides[3], width, first_row * width, end_row * width, channels,
               inside);
        }
      });
}

// The plans of a tile, made when they are asked for.
template <typename T>
class Planner {
 public:
  using A = Compute<T>;

  explicit Planner(const Problem<T>& problem)
      : problem_(problem),
        positions_(1),
        plans_(problem.most_taps()),
        uniform_(problem.mask && problem.mask->size() == 1) {}

  void start(const Tile& tile) {
    tile_ = tile;
    planned_group_ = -1;
    const Attributes& a = problem_.attributes;
    const int64_t width = problem_.g.out_width;
    Positions<A>& positions = positions_[0];
    int64_t y = tile.first / width, x = tile.first % width;
    for (int64_t p = 0; p < tile.count; ++p) {
      positions.base_y[p] = A(y * a.stride[0] - a.pad_before(0));
      positions.base_x[p] = A(x * a.stride[1] - a.pad_before(1));
      if (++x == width) x = 0, ++y;
    }
    // Pixels behind the last sample nothing.
    std::fill(positions.base_y + tile.count, positions.base_y + kTile,
              -std::numeric_limits<A>::infinity());
    std::fill(positions.base_x + tile.count, positions.base_x + kTile, A(0));
    for (A* rest : {positions.offset_y, positions.offset_x, positions.mask}) {
      std::fill(rest + tile.count, rest + kTile, A(0));
    }
    if (!problem_.mask || uniform_) {
      std::fill_n(positions.mask, tile.count, uniform_ ? load(problem_.mask->data[0]) : A(1));
    }
  }

  // The plans of these taps, valid until the next call.
  const Plan<A>* of(int64_t offset_group, const Taps& taps) {
    if (offset_group == planned_group_ && taps.first == planned_tap_) return plans_.data();
    planned_group_ = offset_group;
    planned_tap_ = taps.first;
    Positions<A>& positions = positions_[0];
    const Geometry<int64_t>& g = problem_.g;
    for (int64_t i = 0; i < taps.count; ++i) {
      const int64_t tap = taps.first + i, plane = offset_group * g.taps() + tap;
      copy(problem_.offset, 2 * plane, positions.offset_y);
      copy(problem_.offset, 2 * plane + 1, positions.offset_x);
      if (problem_.mask && !uniform_) copy(*problem_.mask, plane, positions.mask);
      kernels<T>().plan(positions, A(tap / g.kernel_width * problem_.attributes.dilation[0]),
                        A(tap % g.kernel_width * problem_.attributes.dilation[1]), problem_.frame,
                        plans_[i]);
    }
    return plans_.data();
  }

 private:
  // The tile's pixels of one plane.
  void copy(const In<T>& from, int64_t plane, A* to) const { copy_pixels(from, tile_, plane, to); }

  const Problem<T>& problem_;
  const Scratch<Positions<A>> positions_;
  const Scratch<Plan<A>> plans_;
  const bool uniform_;
  Tile tile_{};
  int64_t planned_group_ = -1, planned_tap_ = -1;
};

// A tile's pixels of one plane of a tensor [N, planes, H', W'], in the compute type.
template <typename T>
void copy_pixels(const In<T>& from, const Tile& tile, int64_t plane, Compute<T>* to) {
  const Dims strides = from.strides;
  const T* source = from.data + tile.image * strides[0] + plane * strides[1];
  const int64_t width = from.shape[3];
  if (strides[3] == 1 && strides[2] == width) {
    return kernels<T>().convert(source + tile.first, tile.count, to);
  }
  int64_t y = tile.first / width, x = tile.first % width;
  for (int64_t p = 0; p < tile.count; ++p) {
    to[p] = load(source[y * strides[2] + x * strides[3]]);
    if (++x == width) x = 0, ++y;
  }
}

}  // namespace custom_ops::deform_conv2d
