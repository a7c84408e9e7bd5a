// Shapes over any kind of dimension, and the one way in which a check fails.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <locale>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/symbolic.h"

namespace custom_ops {

// Dim is int64_t in kernels and SymbolicDim in fake functions and shape inference.
template <typename Dim>
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<Dim> dims) : dims_(dims) {}
  explicit Shape(std::vector<Dim> dims) : dims_(std::move(dims)) {}

  size_t rank() const { return dims_.size(); }
  const Dim& operator[](size_t axis) const { return dims_[axis]; }
  const std::vector<Dim>& dims() const { return dims_; }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank() != b.rank()) return false;
    for (size_t i = 0; i < a.rank(); ++i) {
      if (!(a[i] == b[i])) return false;
    }
    return true;
  }

 private:
  std::vector<Dim> dims_;
};

template <typename Dim>
std::ostream& operator<<(std::ostream& out, const std::vector<Dim>& values) {
  out << "[";
  for (size_t i = 0; i < values.size(); ++i) out << (i == 0 ? "" : ", ") << values[i];
  return out << "]";
}

template <typename Dim>
std::ostream& operator<<(std::ostream& out, const Shape<Dim>& shape) {
  return out << shape.dims();
}

template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  (out << ... << parts);
  return out.str();
}

// A broken rule: "<argument> <rule>, got <value>; <remedy>". Whoever calls the op puts its name in
// front.
class RuleError : public std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

template <typename Value>
[[noreturn]] void fail(const std::string& argument, const std::string& rule, const Value& value,
                       const std::string& remedy = "") {
  throw RuleError(text(argument, " ", rule, ", got ", value, remedy.empty() ? "" : "; ", remedy));
}

}  // namespace custom_ops
