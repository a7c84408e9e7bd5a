// Scratch memory that a call leaves for the next one.
//
// The C library returns large blocks to the system when they are freed, and the system clears each
// page again that is taken back: half of the time of a layer with a small kernel. So a few blocks
// are kept. Nobody waits for them: a thread that meets another here, and the child of a fork that
// caught one here, go to the C library.
#include <mutex>
#include <new>
#include <vector>

#include "core/context.h"

namespace custom_ops {
namespace {

class SpareMemory {
 public:
  void* allocate(size_t bytes) {
    if (const std::unique_lock lock(mutex_, std::try_to_lock); lock) {
      for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
        Header* const header = *block;
        if (header->bytes < bytes || header->bytes > 2 * bytes) continue;
        blocks_.erase(block);
        total_ -= header->bytes;
        return header + 1;
      }
    }
    auto* const header =
        static_cast<Header*>(::operator new(sizeof(Header) + bytes, std::align_val_t{kAlignment}));
    header->bytes = bytes;
    return header + 1;
  }

  void release(void* memory) {
    Header* header = static_cast<Header*>(memory) - 1;
    std::vector<Header*> old;
    if (const std::unique_lock lock(mutex_, std::try_to_lock); lock && header->bytes <= kMost) {
      blocks_.push_back(header);
      total_ += header->bytes;
      while (total_ > kMost) {
        old.push_back(blocks_.front());
        total_ -= blocks_.front()->bytes;
        blocks_.erase(blocks_.begin());
      }
    } else {
      old.push_back(header);
    }
    for (Header* block : old) ::operator delete(block, std::align_val_t{kAlignment});
  }

 private:
  // Bytes kept. The address sanitizer would not see who writes behind a block that is used again.
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t kMost = 0;
#else
  static constexpr size_t kMost = size_t{64} << 20;
#endif

  struct alignas(kAlignment) Header {
    size_t bytes;
  };

  std::mutex mutex_;
  std::vector<Header*> blocks_;  // the oldest first
  size_t total_ = 0;
};

SpareMemory& spare() {
  static auto& memory = *new SpareMemory;  // outlives threads that still call ops
  return memory;
}

}  // namespace

void* allocate_scratch(size_t bytes) { return spare().allocate(bytes); }
void release_scratch(void* memory) { spare().release(memory); }

}  // namespace custom_ops
