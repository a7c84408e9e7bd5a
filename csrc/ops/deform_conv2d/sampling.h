// Bilinear sampling: where each tap of each output pixel reads the input, shared by all channels.
#pragma once

#include <algorithm>
#include <limits>

#include "ops/deform_conv2d/geometry.h"

namespace custom_ops::deform_conv2d {

// Output pixels that a kernel treats together.
inline constexpr int64_t kOldTile = 64;

// The four neighbours of a position: (top, left), (top, right), (bottom, left), (bottom, right).
template <typename A>
struct Sample {
  static constexpr int64_t kOutside = std::numeric_limits<int64_t>::min();

  int64_t at[4];  // element offsets in a channel of the input, or kOutside
  A weight[4];    // bilinear weights, without the mask
  A down, right;  // the fraction of the way from top to bottom, and from left to right
  A mask;
  bool inside;  // false where no neighbour is in the image: the sample counts 0
  bool whole;   // all four neighbours are in the image

  template <typename T>
  A read(const T* channel, int corner) const {
    return at[corner] == kOutside ? A(0) : load(channel[at[corner]]);
  }

  // The interpolated value, without the mask.
  template <typename T>
  A value(const T* channel) const {
    if (whole) {
      return weight[0] * load(channel[at[0]]) + weight[1] * load(channel[at[1]]) +
             weight[2] * load(channel[at[2]]) + weight[3] * load(channel[at[3]]);
    }
    return weight[0] * read(channel, 0) + weight[1] * read(channel, 1) +
           weight[2] * read(channel, 2) + weight[3] * read(channel, 3);
  }
};

// The whole number at or below a number of an int64's size; std::floor is a call on old machines.
template <typename A>
int64_t floor_of(A value) {
  const auto whole = static_cast<int64_t>(value);
  return whole - (value < A(whole) ? 1 : 0);
}

// `stride_y` and `stride_x` are those of a channel of the input.
template <typename A>
Sample<A> sample_at(A y, A x, A mask, int64_t height, int64_t width, int64_t stride_y,
                    int64_t stride_x) {
  constexpr int64_t kOutside = Sample<A>::kOutside;
  Sample<A> sample{{kOutside, kOutside, kOutside, kOutside}, {}, 0, 0, mask, false, false};
  // False for NaN too, so that only numbers of the image's size become integers.
  if (!(y >= A(-1) && y < A(height) && x >= A(-1) && x < A(width))) return sample;
  const int64_t top = floor_of(y), left = floor_of(x);
  sample.inside = true;
  sample.whole = top >= 0 && top + 1 < height && left >= 0 && left + 1 < width;
  sample.down = y - A(top);
  sample.right = x - A(left);
  const A up_down[2] = {A(1) - sample.down, sample.down};
  const A left_right[2] = {A(1) - sample.right, sample.right};
  for (int corner = 0; corner < 4; ++corner) {
    sample.weight[corner] = up_down[corner / 2] * left_right[corner % 2];
  }
  const int64_t first = top * stride_y + left * stride_x;
  const int64_t at[4] = {first, first + stride_x, first + stride_y, first + stride_y + stride_x};
  for (int corner = 0; corner < 4; ++corner) {
    const int64_t row = top + corner / 2, column = left + corner % 2;
    const bool reads = row >= 0 && row < height && column >= 0 && column < width;
    sample.at[corner] = sample.whole || reads ? at[corner] : kOutside;
  }
  return sample;
}

// The inputs of one call and what they say about one another.
template <typename T>
struct OldProblem {
  using A = Compute<T>;

  In<T> input, offset;
  OptionalIn<T> mask;
  Attributes attributes;
  Geometry<int64_t> g;
  bool uniform_mask = mask && mask->size() == 1;

  int64_t pixels() const { return g.out_height * g.out_width; }
  int64_t tiles() const { return (pixels() + kOldTile - 1) / kOldTile; }

  // The samples of `count` pixels from `first` on, of one image and offset group: [tap][kOldTile].
  void plan(int64_t n, int64_t offset_group, int64_t first, int64_t count,
            Sample<A>* samples) const {
    const int64_t taps = g.taps();
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int64_t channel = offset_group * taps + tap;
      const T* offset_y = offset.data + n * offset.strides[0] + 2 * channel * offset.strides[1];
      const T* offset_x = offset_y + offset.strides[1];
      const int64_t kernel_y = tap / g.kernel_width, kernel_x = tap % g.kernel_width;
      int64_t row = first / g.out_width, column = first % g.out_width;
      for (int64_t p = 0; p < count; ++p) {
        const int64_t at = row * offset.strides[2] + column * offset.strides[3];
        // Whole numbers first, then the offset: the rounding that torchvision has.
        const int64_t y = row * attributes.stride[0] - attributes.pad_before(0) +
                          kernel_y * attributes.dilation[0];
        const int64_t x = column * attributes.stride[1] - attributes.pad_before(1) +
                          kernel_x * attributes.dilation[1];
        samples[tap * kOldTile + p] = sample_at<A>(
            A(y) + load(offset_y[at]), A(x) + load(offset_x[at]), mask_at(n, channel, row, column),
            g.height, g.width, input.strides[2], input.strides[3]);
        if (++column == g.out_width) column = 0, ++row;
      }
    }
  }

  A mask_at(int64_t n, int64_t channel, int64_t row, int64_t column) const {
    if (!mask) return A(1);
    if (uniform_mask) return load(mask->data[0]);
    return load(mask->data[n * mask->strides[0] + channel * mask->strides[1] +
                           row * mask->strides[2] + column * mask->strides[3]]);
  }

  const T* input_channel(int64_t n, int64_t channel) const {
    return input.data + n * input.strides[0] + channel * input.strides[1];
  }
};

// A copy of the weight in the compute type, row-major.
template <typename T>
void copy_weight(In<T> weight, Compute<T>* copy) {
  for (int64_t o = 0; o < weight.shape[0]; ++o) {
    for (int64_t c = 0; c < weight.shape[1]; ++c) {
      for (int64_t y = 0; y < weight.shape[2]; ++y) {
        for (int64_t x = 0; x < weight.shape[3]; ++x) {
          *copy++ = load(weight.data[o * weight.strides[0] + c * weight.strides[1] +
                                     y * weight.strides[2] + x * weight.strides[3]]);
        }
      }
    }
  }
}

inline Shape<int64_t> shape_of(Dims dims) {
  return Shape<int64_t>(std::vector<int64_t>(dims.begin(), dims.end()));
}

// The sizes of a call whose shapes have been checked.
template <typename T>
Geometry<int64_t> geometry_of(const Attributes& attributes, In<T> input, In<T> weight,
                              In<T> offset) {
  return attributes.check<int64_t>(shape_of(input.shape), shape_of(weight.shape),
                                   shape_of(offset.shape), nullptr, nullptr);
}

}  // namespace custom_ops::deform_conv2d
