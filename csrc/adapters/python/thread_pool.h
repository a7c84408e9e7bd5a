// Threads for the NumPy functions, which have no host to borrow from.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/context.h"

namespace custom_ops::python {

class ThreadPool {
 public:
  explicit ThreadPool(int threads) : process_(getpid()) {
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { serve(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that have started do.
    }
  }

  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // A fork copies the pool but not its threads.
  bool is_usable() const { return process_ == getpid(); }

  void run(int64_t ranges, RangeFunction function) {
    const std::unique_lock busy(call_, std::try_to_lock);
    if (!busy || workers_.empty()) return function(0, ranges);
    {
      const std::lock_guard lock(mutex_);
      function_ = &function;
      next_ = 0;
      ranges_ = ranges;
      running_ = static_cast<int>(workers_.size());
      error_ = nullptr;
      ++generation_;
    }
    wake_.notify_all();
    work(function);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void serve() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      const RangeFunction& function = *function_;
      lock.unlock();
      work(function);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  void work(const RangeFunction& function) {
    while (true) {
      int64_t range;
      {
        const std::lock_guard lock(mutex_);
        if (next_ >= ranges_) return;
        range = next_++;
      }
      try {
        function(range, range + 1);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
        next_ = ranges_;
      }
    }
  }

  const pid_t process_;
  std::vector<std::thread> workers_;
  std::mutex call_;  // one caller at a time; another works alone
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const RangeFunction* function_ = nullptr;
  int64_t next_ = 0, ranges_ = 0;
  int running_ = 0;
  uint64_t generation_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
};

}  // namespace custom_ops::python
