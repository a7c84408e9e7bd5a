// Matrix products on small panels: the inner loops of convolutions.
#pragma once

#include <cstdint>

namespace custom_ops {

// A matrix whose rows are `row_stride` apart and whose columns are `column_stride` apart.
template <typename T>
struct Matrix {
  const T* data;
  int64_t row_stride;
  int64_t column_stride;
};

// c[m][n] += sum over k of a[m][k] * b[k][n]; the rows of b and c are contiguous.
void multiply_add(int64_t rows, int64_t columns, int64_t depth, Matrix<float> a, const float* b,
                  int64_t b_stride, float* c, int64_t c_stride);
void multiply_add(int64_t rows, int64_t columns, int64_t depth, Matrix<double> a, const double* b,
                  int64_t b_stride, double* c, int64_t c_stride);

// c[m][n] += sum over k of a[m][k] * b[n][k]; the rows of a and b are contiguous.
void multiply_add_transposed(int64_t rows, int64_t columns, int64_t depth, const float* a,
                             int64_t a_stride, const float* b, int64_t b_stride, float* c,
                             int64_t c_stride);
void multiply_add_transposed(int64_t rows, int64_t columns, int64_t depth, const double* a,
                             int64_t a_stride, const double* b, int64_t b_stride, double* c,
                             int64_t c_stride);

}  // namespace custom_ops
