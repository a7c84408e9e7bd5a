// Where taps sample, the samples and their gradients: a vector holds pixels in plans, and channels
// elsewhere. Included by kernels_inl.h.

namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

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

}  // namespace
}  // namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA
