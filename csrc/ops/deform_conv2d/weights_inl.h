// Turns weights to the order of panels and back. Included by kernels_inl.h, after layout_inl.h.

namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

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

}  // namespace
}  // namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA
