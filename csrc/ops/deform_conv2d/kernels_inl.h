// The source of the inner kernels of deformable convolution; kernels.h says what each does.
// Included by kernels.cpp, once for each instruction set.
#include "ops/deform_conv2d/layout_inl.h"
#include "ops/deform_conv2d/sampling_inl.h"
#include "ops/deform_conv2d/weights_inl.h"

namespace custom_ops::deform_conv2d::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

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
