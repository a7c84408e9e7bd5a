// A size that only the host can compute with: a symbolic size of torch, or one not yet known.
#pragma once

#include <cstdint>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>

namespace custom_ops {

enum class Arithmetic { kAdd, kSubtract, kMultiply, kFloorDivide };
enum class Comparison { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };

// What a host does with the numbers it owns. Handles are counted by retain and release.
class SymbolicHost {
 public:
  virtual ~SymbolicHost() = default;
  virtual void retain(void* handle) = 0;
  virtual void release(void* handle) = 0;
  virtual void* from_int(int64_t value) = 0;
  virtual void* compute(Arithmetic op, void* left, void* right) = 0;
  virtual bool compare(Comparison op, void* left, void* right) = 0;
  virtual std::string text(void* handle) = 0;
};

// Either a plain integer, computed here, or a handle, computed by its host.
class SymbolicDim {
 public:
  SymbolicDim(int64_t value = 0) : value_(value) {}  // NOLINT: integers convert, as in arithmetic
  // Takes over one count of `handle`.
  SymbolicDim(SymbolicHost* host, void* handle) : host_(host), handle_(handle) {}
  SymbolicDim(const SymbolicDim& other)
      : host_(other.host_), handle_(other.handle_), value_(other.value_) {
    if (host_ != nullptr) host_->retain(handle_);
  }
  SymbolicDim(SymbolicDim&& other) noexcept { swap(other); }
  SymbolicDim& operator=(SymbolicDim other) noexcept {
    swap(other);
    return *this;
  }
  ~SymbolicDim() {
    if (host_ != nullptr) host_->release(handle_);
  }

  bool is_plain() const { return host_ == nullptr; }
  int64_t value() const { return value_; }
  void* handle() const { return handle_; }

  friend SymbolicDim operator+(const SymbolicDim& a, const SymbolicDim& b) {
    return compute(Arithmetic::kAdd, a, b);
  }
  friend SymbolicDim operator-(const SymbolicDim& a, const SymbolicDim& b) {
    return compute(Arithmetic::kSubtract, a, b);
  }
  friend SymbolicDim operator*(const SymbolicDim& a, const SymbolicDim& b) {
    return compute(Arithmetic::kMultiply, a, b);
  }
  friend SymbolicDim floor_divide(const SymbolicDim& a, const SymbolicDim& b) {
    return compute(Arithmetic::kFloorDivide, a, b);
  }
  friend bool operator==(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kEqual, a, b);
  }
  friend bool operator!=(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kNotEqual, a, b);
  }
  friend bool operator<(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kLess, a, b);
  }
  friend bool operator<=(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kLessEqual, a, b);
  }
  friend bool operator>(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kGreater, a, b);
  }
  friend bool operator>=(const SymbolicDim& a, const SymbolicDim& b) {
    return compare(Comparison::kGreaterEqual, a, b);
  }
  friend std::ostream& operator<<(std::ostream& out, const SymbolicDim& dim) {
    return dim.is_plain() ? out << dim.value_ : out << dim.host_->text(dim.handle_);
  }

 private:
  void swap(SymbolicDim& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(handle_, other.handle_);
    std::swap(value_, other.value_);
  }

  static SymbolicDim compute(Arithmetic op, const SymbolicDim& a, const SymbolicDim& b);
  static bool compare(Comparison op, const SymbolicDim& a, const SymbolicDim& b);
  // `dim` as a number of `host`.
  static SymbolicDim lift(SymbolicHost* host, const SymbolicDim& dim) {
    return dim.is_plain() ? SymbolicDim(host, host->from_int(dim.value_)) : dim;
  }

  SymbolicHost* host_ = nullptr;
  void* handle_ = nullptr;
  int64_t value_ = 0;
};

inline int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) throw std::domain_error("custom_ops: a size must not be divided by 0");
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

template <typename T>
bool compare(Comparison op, const T& a, const T& b) {
  switch (op) {
    case Comparison::kEqual:
      return a == b;
    case Comparison::kNotEqual:
      return a != b;
    case Comparison::kLess:
      return a < b;
    case Comparison::kLessEqual:
      return a <= b;
    case Comparison::kGreater:
      return a > b;
    case Comparison::kGreaterEqual:
      return a >= b;
  }
  return false;
}

inline SymbolicDim SymbolicDim::compute(Arithmetic op, const SymbolicDim& a, const SymbolicDim& b) {
  if (a.is_plain() && b.is_plain()) {
    switch (op) {
      case Arithmetic::kAdd:
        return a.value_ + b.value_;
      case Arithmetic::kSubtract:
        return a.value_ - b.value_;
      case Arithmetic::kMultiply:
        return a.value_ * b.value_;
      case Arithmetic::kFloorDivide:
        return custom_ops::floor_divide(a.value_, b.value_);
    }
  }
  SymbolicHost* host = a.is_plain() ? b.host_ : a.host_;
  const SymbolicDim left = lift(host, a), right = lift(host, b);
  return SymbolicDim(host, host->compute(op, left.handle_, right.handle_));
}

inline bool SymbolicDim::compare(Comparison op, const SymbolicDim& a, const SymbolicDim& b) {
  if (a.is_plain() && b.is_plain()) return custom_ops::compare(op, a.value_, b.value_);
  SymbolicHost* host = a.is_plain() ? b.host_ : a.host_;
  const SymbolicDim left = lift(host, a), right = lift(host, b);
  return host->compare(op, left.handle_, right.handle_);
}

}  // namespace custom_ops
