// The source of the inner kernels of deformable convolution; kernels.h says what each does.
// Included by kernels.cpp, once for each instruction set.
#include "simd/product_inl.h"
#include "simd/transpose_inl.h"

namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

// Unsigned integers that stand for the elements where they are only moved.
template <int kBytes>
struct Carrier;
template <>
struct Carrier<2> {
  using type = uint16_t;
  static constexpr int size = CUSTOM_OPS_VECTOR_BYTES == 16 ? 8 : 16;
};
template <>
struct Carrier<4> {
  using type = uint32_t;
  static constexpr int size = lanes<uint32_t>;
};
template <>
struct Carrier<8> {
  using type = uint64_t;
  static constexpr int size = lanes<uint64_t>;
};

// Walks over pixels in row-major order and gives their places in a frame.
struct Walk {
  int64_t width, column, at;

  CUSTOM_OPS_INLINE Walk start(int64_t width, int64_t first) {
    return {width, first % width, first / width * (width + 2) + first % width};
  }
  [[gnu::always_inline]] void step() {
    ++at;
    if (++column == width) column = 0, at += 2;
  }
};

// Rows of planes, contiguous, to pixels: blocks in registers, what remains one by one.
template <typename E, int kSize>
static void fill_from_planes(const E* from, int64_t step_c, int64_t width, int64_t begin,
                             int64_t end, int64_t channels, E* to) {
  Walk walk = Walk::start(width, begin);
  int64_t p = begin;
  for (; p + kSize <= end; p += kSize) {
    int64_t places[kSize];
    for (int i = 0; i < kSize; ++i, walk.step()) places[i] = walk.at * channels;
    int64_t c = 0;
    for (; c + kSize <= channels; c += kSize) {
      typename VectorOf<E, kSize>::type rows[kSize];
#pragma GCC unroll 16
      for (int i = 0; i < kSize; ++i) rows[i] = read<E, kSize>(from + (c + i) * step_c + p);
      transpose<E, kSize>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kSize; ++i) write<E, kSize>(to + places[i] + c, rows[i]);
    }
    for (; c < channels; ++c) {
      for (int i = 0; i < kSize; ++i) to[places[i] + c] = from[c * step_c + p + i];
    }
  }
  for (; p < end; ++p, walk.step()) {
    for (int64_t c = 0; c < channels; ++c) to[walk.at * channels + c] = from[c * step_c + p];
  }
}

template <typename T>
static void fill(const T* from, int64_t step_c, int64_t step_x, int64_t width, int64_t begin,
                 int64_t end, int64_t channels, T* to) {
  using Carried = Carrier<sizeof(T)>;
  using E = typename Carried::type;
  if (step_x == 1) {
    return fill_from_planes<E, Carried::size>(reinterpret_cast<const E*>(from), step_c, width,
                                              begin, end, channels, reinterpret_cast<E*>(to));
  }
  Walk walk = Walk::start(width, begin);
  for (int64_t p = begin; p < end; ++p, walk.step()) {
    T* const pixel = to + walk.at * channels;
    const T* const source = from + p * step_x;
    if (step_c == 1) {
      std::memcpy(pixel, source, channels * sizeof(T));
    } else {
      for (int64_t c = 0; c < channels; ++c) pixel[c] = source[c * step_c];
    }
  }
}

// Lanes of blocks that are turned on the way out: 256 bits, which are turned faster than 512, but
// half types are converted in whole registers.
template <typename T>
inline constexpr int turned =
    is_half<T> ? lanes<Compute<T>> : (lanes<T> * sizeof(T) > 32 ? 32 / sizeof(T) : lanes<T>);

// Copies fewer than kSize elements, in a few pieces of fixed size.
template <int kSize, typename T>
CUSTOM_OPS_INLINE void copy_part(const T* from, int64_t count, T* to) {
#pragma GCC unroll 4
  for (int piece = kSize / 2; piece > 0; piece /= 2) {
    if ((count & piece) == 0) continue;
    __builtin_memcpy(to, from, piece * sizeof(T));
    from += piece, to += piece;
  }
}

template <typename T>
static void convert(const T* from, int64_t count, Compute<T>* to) {
  constexpr int n = lanes<Compute<T>>;
  int64_t i = 0;
  for (; i + n <= count; i += n) store(to + i, load(from + i));
  for (; i < count; ++i) to[i] = custom_ops::load(from[i]);
}

template <typename T>
static void turn_weights(const T* from, const T* end, int64_t step, int64_t taps, int64_t channels,
                         Compute<T>* to) {
  using A = Compute<T>;
  constexpr int n = lanes<A>;
  int64_t c = 0;
  for (; c + n <= channels; c += n) {
    for (int64_t tap = 0; tap < taps; tap += n) {
      const int64_t count = taps - tap < n ? taps - tap : n;
      Vector<A> rows[n];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        const T* row = from + (c + i) * step + tap;
        T part[n];
        if (row + n > end) {
          std::memset(static_cast<void*>(part), 0, sizeof(part));
          copy_part<n>(row, count, part);
          row = part;
        }
        rows[i] = load(row);
      }
      transpose<A, n>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        if (i < count) write(to + (tap + i) * channels + c, rows[i]);
      }
    }
  }
  for (; c < channels; ++c) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      to[tap * channels + c] = custom_ops::load(from[c * step + tap]);
    }
  }
}

template <typename T>
static void turn_weights_back(const Compute<T>* from, int64_t taps, int64_t channels, T* to,
                              int64_t step) {
  using A = Compute<T>;
  constexpr int n = lanes<A>;
  const int64_t all = channels * step;
  int64_t c = 0;
  for (; c + n <= channels; c += n) {
    for (int64_t tap = 0; tap < taps; tap += n) {
      const int64_t count = taps - tap < n ? taps - tap : n;
      Vector<A> rows[n] = {};
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        if (i < count) rows[i] = read(from + (tap + i) * channels + c);
      }
      transpose<A, n>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        T* const row = to + (c + i) * step + tap;
        // What sticks out is overwritten by the next row, if that is to be written.
        const bool fits =
            count == n || (step == taps && taps < n && (c + i) * step + tap + n <= all);
        T part[n];
        store(fits ? row : part, rows[i]);
        if (!fits) copy_part<n>(part, count, row);
      }
    }
  }
  for (; c < channels; ++c) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      to[c * step + tap] = custom_ops::store<T>(from[tap * channels + c]);
    }
  }
}

// Turns a block of pixels, whose elements lie at places[i], to rows of planes.
template <typename T>
CUSTOM_OPS_INLINE void turn_block(const Compute<T>* from, const int64_t* places, int64_t pixels,
                                  int64_t outputs, T* to, int64_t plane) {
  using A = Compute<T>;
  constexpr int n = turned<T>;
  typename VectorOf<A, n>::type rows[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) rows[i] = read<A, n>(from + places[i]);
  transpose<A, n>(rows);
  const bool whole = pixels == n && outputs >= n;
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    if (i >= outputs) break;
    T row[n];
    T* const target = whole ? to + i * plane : row;
    if constexpr (is_half<T>) {
      store(target, rows[i]);
    } else {
      write<T, n>(target, rows[i]);
    }
    if (whole) continue;
    if (pixels == n) {
      std::memcpy(to + i * plane, row, sizeof(row));
    } else {
      copy_part<n>(row, pixels, to + i * plane);
    }
  }
}

template <typename T>
static void finish(const Compute<T>* y, int64_t step, int64_t pixels, int64_t outputs, T* out,
                   int64_t plane) {
  constexpr int n = turned<T>;
  int64_t places[n];
  for (int i = 0; i < n; ++i) places[i] = i * step;
  for (int64_t o = 0; o < outputs; o += n) {
    for (int64_t p = 0; p < pixels; p += n) {
      turn_block(y + p * step + o, places, pixels - p < n ? pixels - p : n, outputs - o,
                 out + o * plane + p, plane);
    }
  }
}

template <typename T>
static void empty(const Compute<T>* from, int64_t width, int64_t begin, int64_t end,
                  int64_t channels, T* to, int64_t step_c) {
  constexpr int n = turned<T>;
  Walk walk = Walk::start(width, begin);
  for (int64_t p = begin; p < end; p += n) {
    const int64_t pixels = end - p < n ? end - p : n;
    int64_t places[n] = {};
    for (int64_t i = 0; i < pixels; ++i, walk.step()) places[i] = walk.at * channels;
    for (int64_t c = 0; c < channels; c += n) {
      turn_block(from + c, places, pixels, channels - c, to + c * step_c + p, step_c);
    }
  }
}

// Below: `n` pixels or channels at once.

template <typename A>
static void plan(const Positions<A>& positions, A y, A x, Frame frame, Plan<A>& plan) {
  constexpr int n = lanes<A>;
  using Integers = typename VectorOf<int32_t, n>::type;
  const auto height = static_cast<A>(frame.height), width = static_cast<A>(frame.width);
  const auto row = static_cast<int32_t>(frame.row());
  const auto outside = static_cast<int32_t>(frame.outside());
  for (int64_t p = 0; p < kTile; p += n) {
    // Whole numbers first, then the offset: the rounding that torchvision has.
    Vector<A> down = read(positions.base_y + p) + y + read(positions.offset_y + p);
    Vector<A> right = read(positions.base_x + p) + x + read(positions.offset_x + p);
    // False for NaN too, so that only numbers of the image's size become integers.
    const auto inside = (down >= A(-1)) & (down < height) & (right >= A(-1)) & (right < width);
    const Vector<A> zero{};
    down = inside ? down : zero;
    right = inside ? right : zero;
    const Integers whole_y = __builtin_convertvector(down, Integers);
    const Integers whole_x = __builtin_convertvector(right, Integers);
    Vector<A> top = __builtin_convertvector(whole_y, Vector<A>);
    Vector<A> left = __builtin_convertvector(whole_x, Vector<A>);
    const auto above = down < top, before = right < left;  // truncation rounds up below 0
    const Integers top_row = whole_y + __builtin_convertvector(above, Integers);
    const Integers left_column = whole_x + __builtin_convertvector(before, Integers);
    top = __builtin_convertvector(top_row, Vector<A>);
    left = __builtin_convertvector(left_column, Vector<A>);
    down -= top;
    right -= left;
    const Vector<A> mask = inside ? read(positions.mask + p) : zero;
    const Integers at = (top_row + 1) * row + left_column + 1;
    const Integers whole_inside = __builtin_convertvector(inside, Integers);
    write<int32_t, n>(plan.at + p, whole_inside ? at : (Integers{} + outside));
    const Vector<A> up = A(1) - down, leftward = A(1) - right;
    write(plan.weight[0] + p, up * leftward * mask);
    write(plan.weight[1] + p, up * right * mask);
    write(plan.weight[2] + p, down * leftward * mask);
    write(plan.weight[3] + p, down * right * mask);
    write(plan.down + p, down);
    write(plan.right + p, right);
    write(plan.mask + p, mask);
  }
}

// The four neighbours of a sample in a chunk, and their weights.
template <typename T>
struct Neighbours {
  using A = Compute<T>;
  const T* corner[4];
  A weight[4];

  CUSTOM_OPS_INLINE Neighbours of(const T* chunk, int64_t channels, int64_t row,
                                  const Plan<A>& plan, int64_t p) {
    const T* first = chunk + plan.at[p] * channels;
    return {{first, first + channels, first + row * channels, first + (row + 1) * channels},
            {plan.weight[0][p], plan.weight[1][p], plan.weight[2][p], plan.weight[3][p]}};
  }
  [[gnu::always_inline]] Vector<A> blend(int64_t c) const {
    return weight[0] * load(corner[0] + c) + weight[1] * load(corner[1] + c) +
           weight[2] * load(corner[2] + c) + weight[3] * load(corner[3] + c);
  }
  [[gnu::always_inline]] A blend_one(int64_t c) const {
    return weight[0] * custom_ops::load(corner[0][c]) + weight[1] * custom_ops::load(corner[1][c]) +
           weight[2] * custom_ops::load(corner[2][c]) + weight[3] * custom_ops::load(corner[3][c]);
  }
};

// kChannels: known to the compiler, or 0.
template <int64_t kChannels, typename T>
CUSTOM_OPS_INLINE void sample_piece(const T* chunk, int64_t row, const Plan<Compute<T>>* plan,
                                    Piece piece, int64_t pixels, Compute<T>* panel) {
  constexpr int n = lanes<Compute<T>>;
  const int64_t channels = kChannels == 0 ? piece.channels : kChannels;
  for (int64_t p = 0; p < pixels; ++p) {
    Compute<T>* to = panel + p * kPanelStep + piece.first;
    for (int64_t tap = 0; tap < piece.taps; ++tap, to += channels) {
      const auto near = Neighbours<T>::of(chunk, channels, row, plan[tap], p);
      // What sticks out is overwritten by the next tap.
#pragma GCC unroll 8
      for (int64_t c = 0; c < channels; c += n) write(to + c, near.blend(c));
    }
  }
}

template <typename T>
static void sample_narrow(const T* chunk, int64_t row, const Plan<Compute<T>>* plan, Piece piece,
                          int64_t pixels, Compute<T>* panel) {
  for (int64_t p = 0; p < pixels; ++p) {
    Compute<T>* to = panel + p * kPanelStep + piece.first;
    for (int64_t tap = 0; tap < piece.taps; ++tap) {
      const auto near = Neighbours<T>::of(chunk, piece.channels, row, plan[tap], p);
      for (int64_t c = 0; c < piece.channels; ++c) *to++ = near.blend_one(c);
    }
  }
}

template <typename T>
static void sample(const T* chunk, int64_t row, const Plan<Compute<T>>* plan, Piece piece,
                   int64_t pixels, Compute<T>* panel) {
  if (piece.channels == kChunk) {
    sample_piece<kChunk>(chunk, row, plan, piece, pixels, panel);
  } else if (piece.channels <= 2) {
    sample_narrow(chunk, row, plan, piece, pixels, panel);
  } else {
    sample_piece<0>(chunk, row, plan, piece, pixels, panel);
  }
}

template <typename T>
static void sample_depthwise(const T* chunk, int64_t row, const Plan<Compute<T>>* plan,
                             int64_t channels, int64_t taps, int64_t pixels, const Compute<T>* w,
                             Compute<T>* y) {
  using A = Compute<T>;
  constexpr int n = lanes<A>;
  const int64_t whole = channels - channels % n;
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const auto near = Neighbours<T>::of(chunk, channels, row, plan[tap], p);
      A* const to = y + p * channels;
      const A* const factor = w + tap * channels;
      for (int64_t c = 0; c < whole; c += n) {
        write(to + c, read(to + c) + read(factor + c) * near.blend(c));
      }
      for (int64_t c = whole; c < channels; ++c) to[c] += factor[c] * near.blend_one(c);
    }
  }
}

template <typename T>
static void pack(const T* rows, int64_t step, int64_t given, int64_t count, const int64_t* places,
                 Compute<T>* to) {
  using A = Compute<T>;
  constexpr int n = lanes<A>;
  for (int first = 0; first < block_columns<A>; first += n) {
    const T* const from = rows + first * step;
    int64_t i = 0;
    for (; first + n <= given && i + n <= count; i += n) {
      Vector<A> block[n];
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) block[r] = load(from + r * step + i);
      transpose<A, n>(block);
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) write(to + places[i + r] + first, block[r]);
    }
    for (; i < count; ++i) {
      for (int r = 0; r < n; ++r) {
        to[places[i] + first + r] = first + r < given ? custom_ops::load(from[r * step + i]) : A(0);
      }
    }
  }
}

template <typename A>
static void multiply(int64_t pixels, int64_t depth, const A* panel, const A* w, A* y,
                     const A* start, const A* next) {
  constexpr int kColumns = block_columns<A>;
  multiply_rows<Steps<kPanelStep, 1>, kColumns, kColumns>(pixels, depth, panel, w, y, start, next);
}

template <typename A>
static void multiply_grad(int64_t pixels, int64_t depth, int64_t outputs, const A* grad, const A* w,
                          A* panel) {
  constexpr int kColumns = block_columns<A>;
  const A zeros[kColumns] = {};
  for (int64_t k = 0; k < depth; k += kColumns, w += kColumns * outputs) {
    multiply_rows<Steps<1, kTile>, kColumns, kPanelStep>(pixels, outputs, grad, w, panel + k, zeros,
                                                         w + kColumns * outputs);
  }
}

template <typename A>
static void multiply_weight(int64_t pixels, int64_t depth, int64_t outputs, const A* grad,
                            const A* panel, A* w) {
  constexpr int kColumns = block_columns<A>;
  constexpr const A* kNone = nullptr;
  for (int64_t k = 0; k < depth; k += kColumns) {
    multiply_rows<Steps<kTile, 1>, kPanelStep, kPanelStep>(outputs, pixels, grad, panel + k, w + k,
                                                           kNone, kNone);
  }
}

// The columns and gradients of one sample; `grad` is the gradient of its column.
template <int64_t kChannels, typename T>
CUSTOM_OPS_INLINE void sample_back_one(const Neighbours<T>& near, int64_t some_channels,
                                       int64_t row, Compute<T>* column, Compute<T>* target,
                                       Compute<T>* dots) {
  using A = Compute<T>;
  constexpr int n = lanes<A>;
  const int64_t channels = kChannels == 0 ? some_channels : kChannels;
  const int64_t whole = channels - channels % n;
  A* const to[4] = {target, target + channels, target + row * channels,
                    target + (row + 1) * channels};
  Vector<A> products[4] = {};
  for (int64_t c = 0; c < whole; c += n) {
    const Vector<A> grad = read(column + c);
    Vector<A> value{};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Vector<A> corner = load(near.corner[i] + c);
      value += near.weight[i] * corner;
      products[i] += grad * corner;
    }
    write(column + c, value);
    if (target == nullptr) continue;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) write(to[i] + c, read(to[i] + c) + near.weight[i] * grad);
  }
  A sums[4];
  sum_four(products, sums);
  if constexpr (kChannels == 0) {
    for (int64_t c = whole; c < channels; ++c) {
      const A grad = column[c];
      column[c] = near.blend_one(c);
      for (int i = 0; i < 4; ++i) {
        sums[i] += grad * custom_ops::load(near.corner[i][c]);
        if (target != nullptr) to[i][c] += near.weight[i] * grad;
      }
    }
  }
  if (dots == nullptr) return;
  for (int i = 0; i < 4; ++i) dots[i * kTile] = sums[i];
}

template <int64_t kChannels, typename T>
static void sample_back_piece(const T* chunk, int64_t row, const Plan<Compute<T>>* plan,
                              Piece piece, int64_t pixels, Compute<T>* panel,
                              Compute<T>* chunk_grad, Compute<T>* dots) {
  using A = Compute<T>;
  const int64_t channels = kChannels == 0 ? piece.channels : kChannels;
  for (int64_t p = 0; p < pixels; ++p) {
    A* column = panel + p * kPanelStep + piece.first;
    for (int64_t tap = 0; tap < piece.taps; ++tap, column += channels) {
      const auto near = Neighbours<T>::of(chunk, channels, row, plan[tap], p);
      A* const target = chunk_grad == nullptr ? nullptr : chunk_grad + plan[tap].at[p] * channels;
      A* const products = dots == nullptr ? nullptr : dots + tap * kTile * 4 + p;
      sample_back_one<kChannels>(near, channels, row, column, target, products);
    }
  }
}

template <typename T>
static void sample_back(const T* chunk, int64_t row, const Plan<Compute<T>>* plan, Piece piece,
                        int64_t pixels, Compute<T>* panel, Compute<T>* chunk_grad,
                        Compute<T>* dots) {
  if (piece.channels == kChunk) {
    sample_back_piece<kChunk>(chunk, row, plan, piece, pixels, panel, chunk_grad, dots);
  } else {
    sample_back_piece<0>(chunk, row, plan, piece, pixels, panel, chunk_grad, dots);
  }
}

template <typename T>
static void sample_depthwise_back(const T* chunk, int64_t row, const Plan<Compute<T>>* plan,
                                  int64_t channels, int64_t taps, int64_t pixels,
                                  const Compute<T>* grad, const Compute<T>* w, Compute<T>* w_grad,
                                  Compute<T>* chunk_grad, Compute<T>* dots) {
  using A = Compute<T>;
  A column[kChunk];
  for (int64_t p = 0; p < pixels; ++p) {
    for (int64_t tap = 0; tap < taps; ++tap) {
      const auto near = Neighbours<T>::of(chunk, channels, row, plan[tap], p);
      const A* const slope = grad + p * channels;
      for (int64_t c = 0; c < channels; ++c) column[c] = slope[c] * w[tap * channels + c];
      A* const target = chunk_grad == nullptr ? nullptr : chunk_grad + plan[tap].at[p] * channels;
      A* const products = dots == nullptr ? nullptr : dots + tap * kTile * 4 + p;
      sample_back_one<0>(near, channels, row, column, target, products);
      A* const sum = w_grad + tap * channels;
      for (int64_t c = 0; c < channels; ++c) sum[c] += slope[c] * column[c];
    }
  }
}

template <typename A>
static void position(const Plan<A>& plan, int32_t outside, const A* dots, int64_t pixels, A* y,
                     A* x, A* mask) {
  for (int64_t p = 0; p < pixels; ++p) {
    const A top_left = dots[p], top_right = dots[kTile + p];
    const A bottom_left = dots[2 * kTile + p], bottom_right = dots[3 * kTile + p];
    const A down = plan.down[p], right = plan.right[p];
    const A top = (1 - right) * top_left + right * top_right;
    const A bottom = (1 - right) * bottom_left + right * bottom_right;
    const A slope_x = (1 - down) * (top_right - top_left) + down * (bottom_right - bottom_left);
    const bool inside = plan.at[p] != outside;
    y[p] = inside ? plan.mask[p] * (bottom - top) : A(0);
    x[p] = inside ? plan.mask[p] * slope_x : A(0);
    mask[p] = inside ? (1 - down) * top + down * bottom : A(0);
  }
}

template <typename T>
inline const Kernels<T> kernel_table = {block_columns<Compute<T>>,
                                        kBlockRows / 2,
                                        &fill<T>,
                                        &empty<T>,
                                        &convert<T>,
                                        &turn_weights<T>,
                                        &turn_weights_back<T>,
                                        &plan<Compute<T>>,
                                        &sample<T>,
                                        &sample_depthwise<T>,
                                        &pack<T>,
                                        &multiply<Compute<T>>,
                                        &finish<T>,
                                        &multiply_grad<Compute<T>>,
                                        &multiply_weight<Compute<T>>,
                                        &sample_back<T>,
                                        &sample_depthwise_back<T>,
                                        &position<Compute<T>>};

}  // namespace
}  // namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA
