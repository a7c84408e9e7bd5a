// What a host lends a kernel for the length of one call: its threads and its memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <type_traits>

namespace custom_ops {

// A reference to a callable void(begin, end), which must outlive it.
class RangeFunction {
 public:
  template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, RangeFunction>)
  RangeFunction(const F& function)  // NOLINT: lambdas convert
      : object_(&function), call_([](const void* object, int64_t begin, int64_t end) {
          (*static_cast<const F*>(object))(begin, end);
        }) {}

  void operator()(int64_t begin, int64_t end) const { call_(object_, begin, end); }

 private:
  const void* object_;
  void (*call_)(const void*, int64_t, int64_t);
};

class Context {
 public:
  virtual ~Context() = default;

  // Calls function(begin, end) on disjoint ranges that cover [0, count), perhaps at the same time
  // and each long enough to be worth a thread: `grain` elements. An exception reaches the caller.
  // Calls do not nest.
  virtual void parallel_for(int64_t count, int64_t grain, RangeFunction function) const = 0;

  // How many threads parallel_for may use at once, as far as the host tells.
  virtual int64_t threads() const = 0;

  // Memory of the host, not initialised, aligned to kAlignment; and its return. Both may be called
  // from inside parallel_for. Kernels use Scratch.
  virtual void* allocate(size_t bytes) const = 0;
  virtual void release(void* memory) const = 0;
};

inline constexpr size_t kAlignment = 64;

// An array in the host's memory, not initialised, that lives as long as this object.
template <typename T>
class Scratch {
 public:
  Scratch(const Context& context, int64_t count)
      : context_(context), data_(static_cast<T*>(context.allocate(bytes_of(count)))) {}
  ~Scratch() { context_.release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  // Hosts add a little to it, so it stays well below what a size can hold.
  static size_t bytes_of(int64_t count) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 2;
    if (count < 0 || count > kMost / static_cast<int64_t>(sizeof(T))) throw std::bad_alloc();
    return static_cast<size_t>(count) * sizeof(T);
  }

  const Context& context_;
  T* data_;
};

}  // namespace custom_ops
