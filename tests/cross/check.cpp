// Checks the kernels without a host: every op against plain loops, in all floating types. For
// machines that have neither torch nor Python at hand; tools/cross runs it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/op.h"
#include "simd/isa.h"

namespace custom_ops {

// Instead of those of the library, which keep blocks.
int fill_of_scratch = 0;  // each byte of it
void* allocate_scratch(size_t bytes) {
  void* const memory = ::operator new(bytes, std::align_val_t(kAlignment));
  return std::memset(memory, fill_of_scratch, bytes);
}
void release_scratch(void* memory) { ::operator delete(memory, std::align_val_t(kAlignment)); }

namespace {

int failures = 0;

// As many threads as one likes, in turns.
class TestContext final : public Context {
 public:
  explicit TestContext(int64_t threads) : threads_(threads) {}

  void parallel_for(int64_t count, int64_t grain, RangeFunction function) const override {
    const int64_t most = std::min(threads_, count / std::max<int64_t>(grain, 1));
    const int64_t ranges = std::max<int64_t>(most, 1);
    for (int64_t i = ranges; count > 0 && i-- > 0;) {
      function(count * i / ranges, count * (i + 1) / ranges);
    }
  }
  int64_t tasks() const override { return threads_; }

 private:
  int64_t threads_;
};

template <typename T>
T rounded(double value) {
  return store<T>(static_cast<Compute<T>>(value));
}
template <typename T>
double wide(T value) {
  return static_cast<double>(load(value));
}

// A row-major tensor; `given` is false for one that is left out.
template <typename T>
struct Array {
  std::vector<int64_t> shape, strides;
  std::vector<T> data;
  bool given = true;

  Array(std::vector<int64_t> sizes) : shape(std::move(sizes)), strides(shape.size()) {
    int64_t size = 1;
    for (size_t axis = shape.size(); axis-- > 0; size *= shape[axis]) strides[axis] = size;
    data.resize(size);
  }
  Tensor view() { return {data.data(), shape, strides}; }
  void draw(std::mt19937& random, double spread) {
    std::normal_distribution<double> normal(0, spread);
    for (T& value : data) value = rounded<T>(normal(random));
  }
};

// Calls an op with inputs of one type; the attributes are those of its spec where none is named.
template <typename T>
std::vector<std::vector<T>> call(
    const std::string& name, std::vector<Array<T>*> inputs,
    const std::vector<std::pair<std::string, AttributeValue>>& attributes, int64_t threads,
    int fill) {
  const auto found = std::find_if(registry().begin(), registry().end(),
                                  [&](const OpType* type) { return type->name == name; });
  const OpType& type = **found;
  std::vector<AttributeValue> values;
  for (const AttributeSpec& spec : type.attributes) {
    values.push_back(spec.initial);
    for (const auto& [key, value] : attributes) {
      if (key == spec.name) values.back() = value;
    }
  }
  std::vector<std::optional<DType>> dtypes;
  std::vector<std::optional<Tensor>> views;
  std::vector<Shape<int64_t>> shapes;
  std::vector<const Shape<int64_t>*> pointers;
  shapes.reserve(inputs.size());
  for (Array<T>* input : inputs) {
    dtypes.push_back(input->given ? std::optional(dtype_of<T>) : std::nullopt);
    views.push_back(input->given ? std::optional(input->view()) : std::nullopt);
    shapes.emplace_back(input->shape);
    pointers.push_back(input->given ? &shapes.back() : nullptr);
  }
  const auto op = type.create(values);
  std::vector<Array<T>> outputs;
  for (const auto& shape : op->infer(pointers)) outputs.emplace_back(shape.dims());
  std::vector<Tensor> output_views;
  for (Array<T>& output : outputs) output_views.push_back(output.view());
  fill_of_scratch = fill;
  op->compute(*find_signature(type, dtypes), TestContext(threads), views, output_views);
  std::vector<std::vector<T>> results;
  for (Array<T>& output : outputs) results.push_back(std::move(output.data));
  return results;
}

// The same on more threads, in memory full of something else: must give the same bits.
template <typename T, typename... Arguments>
std::vector<std::vector<T>> call_twice(const std::string& what, const Arguments&... arguments) {
  const auto results = call<T>(arguments..., 1, 0xff);
  const auto others = call<T>(arguments..., 3, 0);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto &a = results[i], &b = others[i];
    if (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) != 0) {
      std::printf("%s: result %zu must not depend on threads and memory\n", what.c_str(), i);
      ++failures;
    }
  }
  return results;
}

template <typename T>
void compare(const std::string& what, const std::vector<T>& actual,
             const std::vector<double>& expected) {
  constexpr double tolerance = std::is_same_v<T, double>     ? 1e-12
                               : std::is_same_v<T, float>    ? 1e-5
                               : std::is_same_v<T, BFloat16> ? 0x1p-8
                                                             : 0x1p-11;  // half a last digit
  double largest = 1, worst = actual.size() == expected.size() ? 0 : INFINITY;
  for (double value : expected) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < expected.size() && worst < INFINITY; ++i) {
    const double error = std::fabs(wide(actual[i]) - expected[i]) / largest;
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  if (worst > tolerance * 1.01) {
    std::printf("%s, %s: must differ by at most %g, got %g\n", what.c_str(), name(dtype_of<T>),
                tolerance, worst);
    ++failures;
  }
}

struct Case {
  const char* name;
  int64_t batch, channels, outputs, height, width, kernel, groups, offset_groups;
  int64_t stride = 1, padding = 1, dilation = 1;
  double spread = 2;
  bool bias = true, mask = true;
};

constexpr Case kCases[] = {
    {"plain", 1, 64, 24, 15, 14, 3, 1, 1},
    {"odd channels", 2, 67, 20, 9, 13, 3, 1, 1},
    {"stride", 2, 3, 20, 17, 15, 3, 1, 1, 2},
    {"dilation", 1, 20, 3, 18, 17, 3, 1, 1, 1, 2, 2},
    {"groups", 2, 48, 36, 7, 8, 3, 4, 8},
    {"5x5", 1, 34, 18, 9, 7, 5, 2, 1, 1, 2},
    {"7x7", 1, 40, 16, 9, 7, 7, 1, 2, 1, 3},
    {"1x1", 2, 80, 48, 7, 7, 1, 1, 1, 1, 0},
    {"depthwise", 2, 37, 37, 9, 9, 3, 37, 1},
    {"depthwise in offset groups", 1, 40, 40, 9, 9, 3, 40, 8},
    {"multiplier", 1, 20, 40, 9, 9, 3, 20, 20},
    {"without mask and bias", 8, 36, 18, 5, 5, 3, 1, 1, 1, 1, 1, 2, false, false},
    {"whole offsets", 1, 40, 18, 8, 8, 3, 1, 1, 1, 1, 1, 0},
    {"far offsets", 2, 40, 18, 5, 4, 3, 1, 1, 1, 1, 1, 10},
    {"one pixel", 2, 33, 5, 1, 1, 3, 1, 1},
};

// Deformable convolution and its gradients from the definition, in float64; positions have the
// rounding of the type.
template <typename T>
struct Plain {
  std::vector<double> output, input, weight, offset, bias, mask;  // the others: gradients

  Plain(const Case& c, const Array<T>& x, const Array<T>& w, const Array<T>& shift,
        const Array<T>& start, const Array<T>& gate, const Array<T>& slope)
      : output(slope.data.size()),
        input(x.data.size()),
        weight(w.data.size()),
        offset(shift.data.size()),
        bias(start.data.size()),
        mask(gate.data.size()) {
    using A = Compute<T>;
    const int64_t taps = c.kernel * c.kernel, pixels = slope.shape[2] * slope.shape[3];
    const int64_t per_group = c.channels / c.groups, outputs = c.outputs / c.groups;
    for (int64_t n = 0; n < c.batch; ++n) {
      for (int64_t o = 0; o < c.outputs; ++o) {
        for (int64_t p = 0; p < pixels; ++p) {
          const int64_t at = (n * c.outputs + o) * pixels + p;
          if (c.bias) output[at] = wide(start.data[o]), bias[o] += wide(slope.data[at]);
        }
      }
      for (int64_t channel = 0; channel < c.channels; ++channel) {
        const int64_t offset_group = channel / (c.channels / c.offset_groups);
        const int64_t plane = (n * c.channels + channel) * c.height * c.width;
        for (int64_t tap = 0; tap < taps; ++tap) {
          for (int64_t p = 0; p < pixels; ++p) {
            const int64_t row = (n * c.offset_groups + offset_group) * taps + tap;
            const int64_t at_y = 2 * row * pixels + p, at_x = at_y + pixels;
            const A y = A(p / slope.shape[3] * c.stride - c.padding) +
                        A(tap / c.kernel * c.dilation) + load(shift.data[at_y]);
            const A x_at = A(p % slope.shape[3] * c.stride - c.padding) +
                           A(tap % c.kernel * c.dilation) + load(shift.data[at_x]);
            if (!(y >= -1 && y < c.height && x_at >= -1 && x_at < c.width)) continue;
            const double top = std::floor(double(y)), left = std::floor(double(x_at));
            const double down = double(y) - top, right = double(x_at) - left;
            const double m = c.mask ? wide(gate.data[row * pixels + p]) : 1;
            double value = 0, slope_y = 0, slope_x = 0, grad = 0;
            const auto corners = [&](const auto& visit) {
              for (int i = 0; i < 4; ++i) {
                const int64_t h = int64_t(top) + i / 2, v = int64_t(left) + i % 2;
                if (h < 0 || h >= c.height || v < 0 || v >= c.width) continue;
                const double a = i / 2 ? down : 1 - down, b = i % 2 ? right : 1 - right;
                visit(plane + h * c.width + v, a, b, i / 2 ? 1.0 : -1.0, i % 2 ? 1.0 : -1.0);
              }
            };
            corners([&](int64_t place, double a, double b, double sign_y, double sign_x) {
              const double pixel = wide(x.data[place]);
              value += a * b * pixel, slope_y += sign_y * b * pixel, slope_x += sign_x * a * pixel;
            });
            for (int64_t o = 0; o < outputs; ++o) {
              const int64_t out = channel / per_group * outputs + o;
              const int64_t at = (n * c.outputs + out) * pixels + p;
              const int64_t factor = (out * per_group + channel % per_group) * taps + tap;
              output[at] += wide(w.data[factor]) * m * value;
              weight[factor] += wide(slope.data[at]) * m * value;
              grad += wide(slope.data[at]) * wide(w.data[factor]);
            }
            corners([&](int64_t place, double a, double b, double, double) {
              input[place] += grad * m * a * b;
            });
            offset[at_y] += grad * m * slope_y, offset[at_x] += grad * m * slope_x;
            if (c.mask) mask[row * pixels + p] += grad * value;
          }
        }
      }
    }
  }
};

template <typename T>
void check_deform_conv2d(const Case& c) {
  std::mt19937 random(1);
  const auto size = [&](int64_t whole) {
    return (whole + 2 * c.padding - c.dilation * (c.kernel - 1) - 1) / c.stride + 1;
  };
  const int64_t taps = c.offset_groups * c.kernel * c.kernel;
  const int64_t height = size(c.height), width = size(c.width);
  Array<T> x({c.batch, c.channels, c.height, c.width}), bias({c.outputs});
  Array<T> w({c.outputs, c.channels / c.groups, c.kernel, c.kernel});
  Array<T> offset({c.batch, 2 * taps, height, width}), mask({c.batch, taps, height, width});
  Array<T> slope({c.batch, c.outputs, height, width});
  bias.given = c.bias, mask.given = c.mask;
  for (Array<T>* array : {&x, &w, &bias, &mask, &slope}) array->draw(random, 1);
  offset.draw(random, c.spread);

  const std::vector<std::pair<std::string, AttributeValue>> attributes = {
      {"stride", std::vector<int64_t>(2, c.stride)},
      {"padding", std::vector<int64_t>(4, c.padding)},
      {"dilation", std::vector<int64_t>(2, c.dilation)},
      {"needs", std::vector<int64_t>{1, 1, 1, c.bias, c.mask}}};
  const std::string what = std::string("deform_conv2d, ") + c.name;
  const Plain<T> plain(c, x, w, offset, bias, mask, slope);
  const std::vector<Array<T>*> inputs = {&x, &w, &offset, &bias, &mask};
  const auto forward = call_twice<T>(what, "deform_conv2d", inputs, attributes);
  compare(what, forward[0], plain.output);
  const std::vector<Array<T>*> all = {&slope, &x, &w, &offset, &bias, &mask};
  const auto backward = call_twice<T>(what, "_deform_conv2d_backward", all, attributes);
  compare(what + ", input", backward[0], plain.input);
  compare(what + ", weight", backward[1], plain.weight);
  compare(what + ", offset", backward[2], plain.offset);
  if (c.bias) compare(what + ", bias", backward[3], plain.bias);
  if (c.mask) compare(what + ", mask", backward[4], plain.mask);
}

template <typename T>
void check_mul_add() {
  for (int64_t size : {1, 7, 33, 1000}) {
    std::mt19937 random(1);
    Array<T> a({size}), b({size});
    a.draw(random, 1), b.draw(random, 1);
    std::vector<double> expected;
    for (int64_t i = 0; i < size; ++i) expected.push_back(0.5 * wide(a.data[i]) + wide(b.data[i]));
    const std::vector<Array<T>*> inputs = {&a, &b};
    const std::vector<std::pair<std::string, AttributeValue>> half = {{"alpha", 0.5}};
    compare("mul_add", call_twice<T>("mul_add", "mul_add", inputs, half)[0], expected);
  }
}

// Every number of a half type there and back, and every midpoint between neighbours.
template <typename T>
void check_conversions() {
  Array<T> a({1 << 16}), next({1 << 16});
  for (uint32_t i = 0; i < 1 << 16; ++i) {
    a.data[i] = T{static_cast<uint16_t>(i)};
    const bool up = std::isfinite(wide(T{static_cast<uint16_t>(i + 1)})) && (i & 0x7fff) != 0x7fff;
    next.data[i] = T{static_cast<uint16_t>(up ? i + 1 : i)};
  }
  const auto results = call<T>("mul_add", {&a, &next}, {{"alpha", 0.0}}, 1, 0)[0];
  const auto middles = call<T>("mul_add", {&a, &next}, {{"alpha", 1.0}}, 1, 0)[0];
  for (uint32_t i = 0; i < 1 << 16; ++i) {
    const double x = wide(a.data[i]), y = wide(next.data[i]);
    const T expected[] = {rounded<T>(0 * x + y), rounded<T>(x + y)};
    const T actual[] = {results[i], middles[i]};
    for (int k = 0; k < 2; ++k) {
      const bool nan = std::isnan(wide(expected[k]));
      if (nan ? std::isnan(wide(actual[k])) : actual[k].bits == expected[k].bits) continue;
      if (std::fabs(x) == 0 && y == 0) continue;  // the sign of zero
      std::printf("%s: %g and %g give %x, must be %x\n", name(dtype_of<T>), x, y, actual[k].bits,
                  expected[k].bits);
      ++failures;
    }
  }
}

template <typename T>
void check_all() {
  for (const Case& c : kCases) check_deform_conv2d<T>(c);
  check_mul_add<T>();
}

}  // namespace
}  // namespace custom_ops

int main() {
  using namespace custom_ops;
  check_all<float>();
  check_all<double>();
  check_all<Half>();
  check_all<BFloat16>();
  check_conversions<Half>();
  check_conversions<BFloat16>();
  std::printf("%s: %d failures\n", name(isa()), failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
