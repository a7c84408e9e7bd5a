// The threads and memory of an ONNX Runtime session, for the length of one call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "adapters/ort/status.h"
#include "core/context.h"

namespace custom_ops::ort {

class SessionContext final : public Context {
 public:
  SessionContext(const OrtApi* api, const OrtKernelContext* context)
      : api_(api), context_(context) {
    check(api_, GetAllocatorWithDefaultOptions::call(api_, &allocator_));
  }

  void parallel_for(int64_t count, int64_t grain, RangeFunction function) const override {
    // A few ranges for each thread there could be.
    const int64_t most = 4 * threads();
    const int64_t ranges = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, most);
    if (count <= 0) return;
    if (ranges == 1) return function(0, count);
    Work work{function, count, ranges, nullptr, {}};
    check(api_, KernelContextParallelFor::call(api_, context_, &run, static_cast<size_t>(ranges),
                                               static_cast<size_t>(ranges), &work));
    if (work.error) std::rethrow_exception(work.error);
  }

  // The runtime does not tell how many it has.
  int64_t threads() const override {
    static const int64_t machine = std::max(1u, std::thread::hardware_concurrency());
    return machine;
  }

  void* allocate(size_t bytes) const override {
    void* block = nullptr;
    check(api_, AllocatorAlloc::call(api_, allocator_, bytes + kAlignment, &block));
    if (block == nullptr) throw std::bad_alloc();
    // The byte before the aligned address tells how far the block starts before it.
    const auto address = reinterpret_cast<uintptr_t>(block);
    const size_t shift = kAlignment - address % kAlignment;
    auto* const aligned = static_cast<unsigned char*>(block) + shift;
    aligned[-1] = static_cast<unsigned char>(shift);
    return aligned;
  }

  void release(void* memory) const override {
    auto* const aligned = static_cast<unsigned char*>(memory);
    succeeded(api_, AllocatorFree::call(api_, allocator_, aligned - aligned[-1]));
  }

 private:
  struct Work {
    RangeFunction function;
    int64_t count, ranges;
    std::exception_ptr error;
    std::mutex mutex;
  };

  static void run(void* data, size_t index) {
    auto& work = *static_cast<Work*>(data);
    const auto i = static_cast<int64_t>(index);
    try {
      work.function(work.count * i / work.ranges, work.count * (i + 1) / work.ranges);
    } catch (...) {
      const std::lock_guard lock(work.mutex);
      work.error = std::current_exception();
    }
  }

  const OrtApi* api_;
  const OrtKernelContext* context_;
  OrtAllocator* allocator_ = nullptr;
};

}  // namespace custom_ops::ort
