// The attributes of deformable convolution, its checks and its sizes, for forward and backward.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "core/register.h"

namespace custom_ops::deform_conv2d {

// Sizes as the kernels use them. Dim is int64_t or SymbolicDim.
template <typename Dim>
struct Geometry {
  Dim batch, channels, height, width;       // input
  Dim out_channels, out_height, out_width;  // output
  Dim group_channels;                       // input channels of one weight group
  Dim kernel_height, kernel_width;
  Dim groups, offset_groups;

  Dim taps() const { return kernel_height * kernel_width; }
  Shape<Dim> output() const { return {batch, out_channels, out_height, out_width}; }
};

struct Attributes {
  std::vector<int64_t> stride{1, 1};         // vertical, horizontal
  std::vector<int64_t> padding{0, 0, 0, 0};  // top, left, bottom, right; or vertical, horizontal
  std::vector<int64_t> dilation{1, 1};       // vertical, horizontal
  int64_t groups = 0;                        // 0: taken from the shapes, as always in torch
  int64_t offset_groups = 0;

  void attributes(auto&& visit) {
    visit("stride", stride, "strides");
    visit("padding", padding, "pads");
    visit("dilation", dilation, "dilations");
    visit("groups", groups, "group");
    visit("offset_groups", offset_groups, "offset_group");
  }

  // Rows and columns added before the image, and before and after it together.
  int64_t pad_before(int axis) const { return padding[axis]; }
  int64_t pad_both(int axis) const {
    return padding[axis] + padding[padding.size() == 4 ? axis + 2 : axis];
  }

  template <typename Dim>
  Geometry<Dim> check(const Shape<Dim>& input, const Shape<Dim>& weight, const Shape<Dim>& offset,
                      const Shape<Dim>* bias, const Shape<Dim>* mask) const {
    check_values("stride", stride, 1);
    check_values("padding", padding, 0);
    check_values("dilation", dilation, 1);
    check_rank("input", input, "[N, C, H, W]");
    check_rank("weight", weight, "[O, C / groups, kernel height, kernel width]");
    check_rank("offset", offset, "[N, 2 * offset groups * kernel height * kernel width, H', W']");

    Geometry<Dim> g;
    g.batch = input[0], g.channels = input[1], g.height = input[2], g.width = input[3];
    g.out_channels = weight[0], g.group_channels = weight[1];
    g.kernel_height = weight[2], g.kernel_width = weight[3];
    if (!(g.kernel_height > Dim(0) && g.kernel_width > Dim(0) && g.group_channels > Dim(0))) {
      fail("weight", "must have a kernel of at least 1 x 1 and one input channel", weight);
    }
    if (!(g.kernel_height <= Dim(kLargestKernel) && g.kernel_width <= Dim(kLargestKernel))) {
      fail("weight", text("must have a kernel of at most ", kLargestKernel, " pixels a side"),
           weight);
    }
    g.groups = floor_divide(g.channels, g.group_channels);
    if (!(g.groups > Dim(0) && g.groups * g.group_channels == g.channels)) {
      fail("weight", text("must have input channels that divide the ", g.channels, " of input"),
           weight, "weight.shape[1] is input.shape[1] / groups");
    }
    const Dim out_per_group = floor_divide(g.out_channels, g.groups);
    if (!(out_per_group * g.groups == g.out_channels)) {
      fail("weight", text("must have output channels that the ", g.groups, " groups divide"),
           weight);
    }
    check_given("groups", Dim(groups), g.groups);

    const Dim per_offset_group = Dim(2) * g.taps();
    g.offset_groups = floor_divide(offset[1], per_offset_group);
    if (!(g.offset_groups > Dim(0) && g.offset_groups * per_offset_group == offset[1])) {
      fail("offset",
           text("must have channels that are a multiple of 2 * kernel height * kernel "
                "width = ",
                per_offset_group),
           offset);
    }
    const Dim per_group = floor_divide(g.channels, g.offset_groups);
    if (!(per_group * g.offset_groups == g.channels)) {
      fail("offset",
           text("must have offset groups that divide the ", g.channels, " channels of input"),
           offset);
    }
    check_given("offset_groups", Dim(offset_groups), g.offset_groups);

    g.out_height = output_size(g.height, g.kernel_height, 0);
    g.out_width = output_size(g.width, g.kernel_width, 1);
    if (!(g.out_height > Dim(0) && g.out_width > Dim(0))) {
      fail("input",
           text("must, with its padding, be at least as large as the dilated kernel; the "
                "output would be ",
                g.out_height, " x ", g.out_width),
           input, "pad more, or use a smaller kernel or dilation");
    }
    const Shape<Dim> offset_shape{g.batch, offset[1], g.out_height, g.out_width};
    if (!(offset == offset_shape)) {
      fail("offset", text("must have shape ", offset_shape), offset);
    }
    if (bias != nullptr && !(*bias == Shape<Dim>{g.out_channels} || is_one_element(*bias, 1))) {
      fail("bias", text("must have shape ", Shape<Dim>{g.out_channels}), *bias);
    }
    if (mask != nullptr) {
      const Shape<Dim> mask_shape{g.batch, g.offset_groups * g.taps(), g.out_height, g.out_width};
      if (!(*mask == mask_shape || is_one_element(*mask, 4))) {
        fail("mask", text("must have shape ", mask_shape), *mask);
      }
    }
    return g;
  }

 private:
  static constexpr int64_t kLargestKernel = 1 << 15;  // no product of sizes overflows
  static constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

  static void check_values(const char* name, const std::vector<int64_t>& values, int64_t least) {
    const bool four = least == 0;  // padding may name its four sides
    bool good = values.size() == 2 || (four && values.size() == 4);
    for (int64_t value : values) good = good && value >= least && value <= kLargest;
    if (!good) {
      fail(name, text("must have 2 ", four ? "or 4 " : "", "values of at least ", least), values);
    }
  }

  template <typename Dim>
  static void check_rank(const char* name, const Shape<Dim>& shape, const char* meaning) {
    if (shape.rank() != 4) fail(name, text("must have 4 dimensions ", meaning), shape);
  }

  template <typename Dim>
  static void check_given(const char* name, const Dim& given, const Dim& derived) {
    if (!(given == Dim(0) || given == derived)) {
      fail(name, text("must be ", derived, ", as the shapes say, or 0"), given);
    }
  }

  // A neutral input, or any other single value, serves every place.
  template <typename Dim>
  static bool is_one_element(const Shape<Dim>& shape, size_t rank) {
    if (shape.rank() != rank) return false;
    for (const Dim& dim : shape.dims()) {
      if (!(dim == Dim(1))) return false;
    }
    return true;
  }

  template <typename Dim>
  Dim output_size(const Dim& size, const Dim& kernel, int axis) const {
    const Dim span = Dim(dilation[axis]) * (kernel - Dim(1)) + Dim(1);
    return floor_divide(size + Dim(pad_both(axis)) - span, Dim(stride[axis])) + Dim(1);
  }
};

}  // namespace custom_ops::deform_conv2d
