// The matrix product's inner kernel: a block of the result stays in registers. Included by
// kernels, once for each instruction set.

namespace custom_ops::CUSTOM_OPS_ISA {
namespace {

// The block: its rows, and its columns in registers. Near all registers are sums.
#if CUSTOM_OPS_VECTOR_BYTES == 64
inline constexpr int kBlockRows = 16, kBlockVectors = 1;
#elif defined(__aarch64__)  // 32 registers
inline constexpr int kBlockRows = 10, kBlockVectors = 2;
#else
inline constexpr int kBlockRows = 6, kBlockVectors = 2;
#endif
template <typename A>
inline constexpr int block_columns = kBlockVectors * lanes<A>;

// Distances between elements, known to the compiler so that they become part of instructions.
template <int kRow, int kDepth>
struct Steps {
  static constexpr int row = kRow, depth = kDepth;
};

// c[m][n] = (start ? start[n] : c[m][n]) + sum over k of a[m][k] * b[k][n], for kRows rows.
template <int kRows, typename StepsA, int kStepB, int kStepC, typename A>
CUSTOM_OPS_INLINE void multiply_block(int64_t depth, const A* a, const A* b, A* c, const A* start) {
  constexpr int n = lanes<A>;
  Vector<A> sums[kRows][kBlockVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kBlockVectors; ++v) {
      sums[r][v] = read(start == nullptr ? c + r * kStepC + v * n : start + v * n);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    Vector<A> row[kBlockVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kBlockVectors; ++v) row[v] = read(b + v * n);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kBlockVectors; ++v) sums[r][v] += a[r * StepsA::row] * row[v];
    }
    a += StepsA::depth;
    b += kStepB;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kBlockVectors; ++v) write(c + r * kStepC + v * n, sums[r][v]);
  }
}

// The same for any number of rows, which are rounded up to half a block: a and c have that many.
// Meanwhile fetches the part of b that comes next, `next` (null: none), to the second cache.
template <typename StepsA, int kStepB, int kStepC, typename A>
static void multiply_rows(int64_t rows, int64_t depth, const A* a, const A* b, A* c, const A* start,
                          const A* next) {
  constexpr int kHalf = kBlockRows / 2, kLine = 64 / sizeof(A);
  const int64_t blocks = rows / kBlockRows + 1;
  const int64_t lines = next == nullptr ? 0 : depth * block_columns<A> / kLine / blocks + 1;
  int64_t m = 0;
  for (; m + kHalf < rows; m += kBlockRows) {
    A* const to = c + m * kStepC;
    for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(next + i * kLine, 0, 2);
    next += lines * kLine;
    for (int r = kBlockRows; r < 2 * kBlockRows; ++r) __builtin_prefetch(to + r * kStepC, 1);
    multiply_block<kBlockRows, StepsA, kStepB, kStepC>(depth, a + m * StepsA::row, b, to, start);
  }
  if (m < rows) {
    multiply_block<kHalf, StepsA, kStepB, kStepC>(depth, a + m * StepsA::row, b, c + m * kStepC,
                                                  start);
  }
}

}  // namespace
}  // namespace custom_ops::CUSTOM_OPS_ISA
