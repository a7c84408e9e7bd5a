// The source of mul_add's inner kernel. Included by kernels.cpp, once for each instruction set.

namespace custom_ops::mul_add::CUSTOM_OPS_ISA {
namespace {

using namespace custom_ops::CUSTOM_OPS_ISA;

template <typename T>
static void run(Compute<T> scale, const T* a, const T* b, T* y, int64_t count) {
  constexpr int n = lanes<Compute<T>>;
  int64_t i = 0;
  // All is read before anything is written: a write delays reads that lie a multiple of 4096 bytes
  // away.
  for (; i + 4 * n <= count; i += 4 * n) {
    Vector<Compute<T>> values[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) values[v] = scale * load(a + i + v * n) + load(b + i + v * n);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) store(y + i + v * n, values[v]);
  }
  for (; i + n <= count; i += n) store(y + i, scale * load(a + i) + load(b + i));
  if (i == count) return;
  // The rest goes through a vector too: its bits are those of the others.
  T rest_a[n] = {}, rest_b[n] = {};
  const T *const left = rest_a, *const right = rest_b;
  std::copy(a + i, a + count, rest_a);
  std::copy(b + i, b + count, rest_b);
  store(rest_a, scale * load(left) + load(right));
  std::copy(rest_a, rest_a + (count - i), y + i);
}

}  // namespace
}  // namespace custom_ops::mul_add::CUSTOM_OPS_ISA
