// The inner kernels of deformable convolution, which are compiled for each instruction set.
//
// The channels are cut into chunks of at most kChunk, each an image of its own in channels-last
// order, so that a vector holds channels of one pixel. A zero frame of one pixel surrounds it: the
// neighbours of a position at the border need no test. Behind it lie two more zero pixels, which
// together with the start of the last row are the four neighbours of samples that count 0.
//
// A tile of pixels is sampled into a panel [pixel][tap][channel of the chunk], which stays in the
// second cache, and the panel is multiplied by a packed slice of the weight.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace custom_ops::deform_conv2d {

inline constexpr int64_t kChunk = 32;          // channels
inline constexpr int64_t kTile = 208;          // pixels
inline constexpr int64_t kDepth = 9 * kChunk;  // columns of a panel in use
// Rows of a panel are an odd number of cache lines apart, or they would share few places in the
// cache. A vector that is written at the end of a row may stick out.
inline constexpr int64_t kPanelStep = kDepth + 16;
// The kernels may read and write whole blocks beyond the last row and the last element.
inline constexpr int64_t kSlackRows = 16;
inline constexpr int64_t kSlack = 64;

// A chunk of an image.
struct Frame {
  int64_t height, width;  // without the frame
  int64_t pixels() const { return (height + 2) * (width + 2) + 2; }
  int64_t row() const { return width + 2; }
  // The first neighbour of samples that count 0.
  int64_t outside() const { return (height + 1) * row(); }
};

// How one tap of each pixel of a tile samples the input. The four neighbours are (top, left),
// (top, right), (bottom, left), (bottom, right).
template <typename A>
struct Plan {
  int32_t at[kTile];   // pixel of the frame: the first neighbour
  A weight[4][kTile];  // bilinear weights, times the mask
  A down[kTile];       // fractions of the way from top to bottom, and from left to right
  A right[kTile];
  A mask[kTile];  // 0 where the sample counts 0
};

// Where one tap of a tile's pixels lies: whole numbers and the offsets, and the mask.
template <typename A>
struct Positions {
  A base_y[kTile], base_x[kTile];  // of the first tap
  A offset_y[kTile], offset_x[kTile], mask[kTile];
};

// A number of consecutive taps of one chunk. They lie in the panel from `first` on.
struct Piece {
  int64_t channels;
  int64_t taps;
  int64_t first;
};

template <typename T>
struct Kernels {
  using A = Compute<T>;

  int64_t columns;  // outputs in one panel of packed weights
  int64_t rows;     // pixels that the products take at least: the best tiles are multiples of it

  // Copies pixels [begin, end) of rows of `width`, whose elements are `step_x` apart, to a chunk:
  // pixel p goes to row p / width of `to`, which is the first pixel inside the frame.
  void (*fill)(const T* from, int64_t step_c, int64_t step_x, int64_t width, int64_t begin,
               int64_t end, int64_t channels, T* to);
  // The way back, to row-major planes.
  void (*empty)(const A* from, int64_t width, int64_t begin, int64_t end, int64_t channels, T* to,
                int64_t step_c);

  // to[i] = from[i], in the compute type.
  void (*convert)(const T* from, int64_t count, A* to);
  // to[tap][c] = from[c][tap], whose rows are `step` apart and may be read up to `end`; and back.
  void (*turn_weights)(const T* from, const T* end, int64_t step, int64_t taps, int64_t channels,
                       A* to);
  void (*turn_weights_back)(const A* from, int64_t taps, int64_t channels, T* to, int64_t step);

  // Plans one tap, `y` and `x` whole numbers below and right of the first.
  void (*plan)(const Positions<A>& positions, A y, A x, Frame frame, Plan<A>& plan);

  // Samples the taps of a piece into a panel.
  void (*sample)(const T* chunk, int64_t row, const Plan<A>* plan, Piece piece, int64_t pixels,
                 A* panel);
  // y[p][c] += sum over taps of w[tap][c] times the sample: a group for each channel.
  void (*sample_depthwise)(const T* chunk, int64_t row, const Plan<A>* plan, int64_t channels,
                           int64_t taps, int64_t pixels, const A* w, A* y);

  // to[places[i] + n] = rows[n][i], n below `columns`: 0 from `given` on. Rows are `step` apart.
  void (*pack)(const T* rows, int64_t step, int64_t given, int64_t count, const int64_t* places,
               A* to);

  // y[p][n] = (start ? start[n] : y[p][n]) + sum over k of panel[p][k] * w[k][n], `columns` wide.
  // `next` is the w of the call that follows, or null.
  void (*multiply)(int64_t pixels, int64_t depth, const A* panel, const A* w, A* y, const A* start,
                   const A* next);
  // Writes y[p][n], `step` wide, to out[n][p], whose planes are `plane` apart.
  void (*finish)(const A* y, int64_t step, int64_t pixels, int64_t outputs, T* out, int64_t plane);

  // panel[p][k] = sum over n of grad[n][p] * w[k / columns][n][k % columns].
  void (*multiply_grad)(int64_t pixels, int64_t depth, int64_t outputs, const A* grad, const A* w,
                        A* panel);
  // w[n][k] += sum over p of grad[n][p] * panel[p][k].
  void (*multiply_weight)(int64_t pixels, int64_t depth, int64_t outputs, const A* grad,
                          const A* panel, A* w);

  // Takes the gradient of a piece's columns from the panel and writes the columns there. Adds to
  // the chunk's gradient, and gives the gradient's products with the four neighbours, in order
  // [tap][neighbour][kTile]. Null: not asked for.
  void (*sample_back)(const T* chunk, int64_t row, const Plan<A>* plan, Piece piece, int64_t pixels,
                      A* panel, A* chunk_grad, A* dots);
  // The same for a group for each channel: grad is [p][c], w and w_grad are [tap][c].
  void (*sample_depthwise_back)(const T* chunk, int64_t row, const Plan<A>* plan, int64_t channels,
                                int64_t taps, int64_t pixels, const A* grad, const A* w, A* w_grad,
                                A* chunk_grad, A* dots);
  // Gradients of one tap's position and mask, from
  // dots[neighbour][kTile]. `outside`: Frame::outside().
  void (*position)(const Plan<A>& plan, int32_t outside, const A* dots, int64_t pixels, A* y, A* x,
                   A* mask);
};

// Those of the instruction set in use. Defined for the four floating types.
template <typename T>
const Kernels<T>& kernels();

}  // namespace custom_ops::deform_conv2d
