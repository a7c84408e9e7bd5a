// The threads of an ONNX Runtime session, for the length of one call.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>

#include "adapters/ort/status.h"
#include "core/context.h"

namespace custom_ops::ort {

class SessionContext final : public Context {
 public:
  SessionContext(const OrtApi* api, const OrtKernelContext* context)
      : api_(api), context_(context) {}

  void parallel_for(int64_t count, int64_t grain, RangeFunction function) const override {
    const int64_t ranges = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, tasks());
    if (count <= 0) return;
    if (ranges == 1) return function(0, count);
    Work work{function, count, ranges, nullptr, {}};
    check(api_, KernelContextParallelFor::call(api_, context_, &run, static_cast<size_t>(ranges),
                                               static_cast<size_t>(ranges), &work));
    if (work.error) std::rethrow_exception(work.error);
  }

  // The runtime does not tell how many threads it has, and they may have to wake up first: a few
  // tasks for each there could be.
  int64_t tasks() const override {
    static const int64_t machine = std::max(1u, std::thread::hardware_concurrency());
    return 4 * machine;
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
};

}  // namespace custom_ops::ort
