// Moves images between their layouts: planes, and chunks or panels of pixels.
// Included by kernels_inl.h.

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

}  // namespace
}  // namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA
