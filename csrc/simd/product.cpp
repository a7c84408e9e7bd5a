// Matrix products on small panels, in blocks that stay in registers.
#include "simd/product.h"

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

// Four rows and one vector of columns of c, kept in registers over the whole depth.
template <typename T>
[[gnu::always_inline]] inline void multiply_add_block(int64_t depth, Matrix<T> a, const T* b,
                                                      int64_t b_stride, T* c, int64_t c_stride) {
  typename Vector<T>::type sum0{}, sum1{}, sum2{}, sum3{};
  const T* a0 = a.data;
  const T* a1 = a0 + a.row_stride;
  const T* a2 = a1 + a.row_stride;
  const T* a3 = a2 + a.row_stride;
  for (int64_t k = 0; k < depth; ++k) {
    typename Vector<T>::type row;
    read(row, b + k * b_stride);
    const int64_t at = k * a.column_stride;
    sum0 += a0[at] * row;
    sum1 += a1[at] * row;
    sum2 += a2[at] * row;
    sum3 += a3[at] * row;
  }
  add(c, sum0);
  add(c + c_stride, sum1);
  add(c + 2 * c_stride, sum2);
  add(c + 3 * c_stride, sum3);
}

template <typename T>
[[gnu::always_inline]] inline void multiply_add_inline(int64_t rows, int64_t columns, int64_t depth,
                                                       Matrix<T> a, const T* b, int64_t b_stride,
                                                       T* c, int64_t c_stride) {
  const int64_t whole_columns = columns - columns % Vector<T>::size;
  const int64_t whole_rows = rows - rows % 4;
  for (int64_t n = 0; n < whole_columns; n += Vector<T>::size) {
    for (int64_t m = 0; m < whole_rows; m += 4) {
      const Matrix<T> block{a.data + m * a.row_stride, a.row_stride, a.column_stride};
      multiply_add_block(depth, block, b + n, b_stride, c + m * c_stride + n, c_stride);
    }
  }
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t k = 0; k < depth; ++k) {
      const T value = a.data[m * a.row_stride + k * a.column_stride];
      const int64_t first = m < whole_rows ? whole_columns : 0;
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
