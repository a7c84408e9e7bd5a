// What a kernel has for the length of one call: the threads of the host, and scratch memory.
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

  // Into how many tasks of equal work a call is best cut: the threads of the host where all start
  // at once, more where some may come late.
  virtual int64_t tasks() const = 0;
};

inline constexpr size_t kAlignment = 64;

// Memory for the length of a call, not initialised, aligned to kAlignment; and its return. Kernels
// use Scratch.
void* allocate_scratch(size_t bytes);
void release_scratch(void* memory);

// An array in scratch memory, not initialised, that lives as long as this object.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(allocate_scratch(bytes_of(count)))) {}
  ~Scratch() { release_scratch(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  // A little is added to it, so it stays well below what a size can hold.
  static size_t bytes_of(int64_t count) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 2;
    if (count < 0 || count > kMost / static_cast<int64_t>(sizeof(T))) throw std::bad_alloc();
    return static_cast<size_t>(count) * sizeof(T);
  }

  T* data_;
};

}  // namespace custom_ops
