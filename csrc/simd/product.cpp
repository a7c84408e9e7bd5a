// Matrix products on small panels, in blocks that stay in registers.
#include "simd/product.h"

#include <algorithm>

#include "simd/multiversion.h"
#include "simd/vector.h"

namespace custom_ops {
namespace {

template <typename T>
[[gnu::always_inline]] inline void add(T* to, const typename Vector<T>::type& value) {
  typename Vector<T>::type sum;
  read(sum, to);
  sum += value;
  write<T>(to, sum);
}

// A block of c in registers: twelve of AVX2, six of AVX-512. Named, since gcc stores an array.
constexpr int64_t kRows = 6;
// The part of b that a block reads stays in the first cache over all rows of c.
constexpr int64_t kDepth = 256;

template <typename T>
[[gnu::always_inline]] inline void multiply_add_block(int64_t depth, Matrix<T> a, const T* b,
                                                      int64_t b_stride, T* c, int64_t c_stride) {
  typename Vector<T>::type sum0{}, sum1{}, sum2{}, sum3{}, sum4{}, sum5{}, row;
  const T* a0 = a.data;
  const int64_t step = a.row_stride;
  for (int64_t k = 0; k < depth; ++k) {
    read<T>(row, b + k * b_stride);
    sum0 += a0[0] * row;
    sum1 += a0[step] * row;
    sum2 += a0[2 * step] * row;
    sum3 += a0[3 * step] * row;
    sum4 += a0[4 * step] * row;
    sum5 += a0[5 * step] * row;
    a0 += a.column_stride;
  }
  add(c, sum0);
  add(c + c_stride, sum1);
  add(c + 2 * c_stride, sum2);
  add(c + 3 * c_stride, sum3);
  add(c + 4 * c_stride, sum4);
  add(c + 5 * c_stride, sum5);
}

template <typename T>
[[gnu::always_inline]] inline void multiply_add_inline(int64_t rows, int64_t columns, int64_t depth,
                                                       Matrix<T> a, const T* b, int64_t b_stride,
                                                       T* c, int64_t c_stride) {
  const int64_t whole_columns = columns - columns % Vector<T>::size;
  const int64_t whole_rows = rows - rows % kRows;
  for (int64_t k = 0; k < depth; k += kDepth) {
    const int64_t part = std::min(kDepth, depth - k);
    for (int64_t n = 0; n < whole_columns; n += Vector<T>::size) {
      for (int64_t m = 0; m < whole_rows; m += kRows) {
        const T* from = a.data + m * a.row_stride + k * a.column_stride;
        multiply_add_block<T>(part, {from, a.row_stride, a.column_stride}, b + k * b_stride + n,
                              b_stride, c + m * c_stride + n, c_stride);
      }
    }
  }
  for (int64_t m = 0; m < rows; ++m) {
    const int64_t first = m < whole_rows ? whole_columns : 0;
    if (first == columns) continue;
    for (int64_t k = 0; k < depth; ++k) {
      const T value = a.data[m * a.row_stride + k * a.column_stride];
      for (int64_t n = first; n < columns; ++n) c[m * c_stride + n] += value * b[k * b_stride + n];
    }
  }
}

template <typename T>
[[gnu::always_inline]] inline T dot(int64_t depth, const T* a, const T* b) {
  typename Vector<T>::type sums{}, left, right;
  int64_t k = 0;
  for (; k + Vector<T>::size <= depth; k += Vector<T>::size) {
    read(left, a + k);
    read(right, b + k);
    sums += left * right;
  }
  T total = 0;
  for (int64_t i = 0; i < Vector<T>::size; ++i) total += sums[i];
  for (; k < depth; ++k) total += a[k] * b[k];
  return total;
}

template <typename T>
[[gnu::always_inline]] inline void multiply_add_transposed_inline(int64_t rows, int64_t columns,
                                                                  int64_t depth, const T* a,
                                                                  int64_t a_stride, const T* b,
                                                                  int64_t b_stride, T* c,
                                                                  int64_t c_stride) {
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < columns; ++n) {
      c[m * c_stride + n] += dot(depth, a + m * a_stride, b + n * b_stride);
    }
  }
}

}  // namespace

#define DEFINE_PRODUCTS(T)                                                                    \
  CUSTOM_OPS_MULTIVERSION void multiply_add(int64_t rows, int64_t columns, int64_t depth,     \
                                            Matrix<T> a, const T* b, int64_t b_stride, T* c,  \
                                            int64_t c_stride) {                               \
    multiply_add_inline<T>(rows, columns, depth, a, b, b_stride, c, c_stride);                \
  }                                                                                           \
  CUSTOM_OPS_MULTIVERSION void multiply_add_transposed(                                       \
      int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t a_stride, const T* b, \
      int64_t b_stride, T* c, int64_t c_stride) {                                             \
    multiply_add_transposed_inline<T>(rows, columns, depth, a, a_stride, b, b_stride, c,      \
                                      c_stride);                                              \
  }
DEFINE_PRODUCTS(float)
DEFINE_PRODUCTS(double)
#undef DEFINE_PRODUCTS

}  // namespace custom_ops
