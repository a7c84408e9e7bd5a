// The weight of deform_conv2d as the forward pass multiplies by it.
#pragma once

#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "ops/deform_conv2d/problem.h"

namespace custom_ops::deform_conv2d {

// Taps of some chunks of one weight group that fill a panel.
struct Block {
  struct Part {
    Chunk chunk;
    Piece piece;
  };
  int64_t group;
  Taps taps;
  int64_t depth = 0;
  int64_t place = 0;  // of its packed weights
  std::vector<Part> parts{};
};

// In order [block][panel of outputs][depth][column]; what is behind the last output is 0.
template <typename T>
class PackedWeights {
 public:
  using A = Compute<T>;

  explicit PackedWeights(const Problem<T>& problem)
      : columns_(kernels<T>().columns),
        group_outputs_(problem.g.out_channels / problem.g.groups),
        panels_(ceil_divide(group_outputs_, columns_)) {
    for (int64_t group = 0; group < problem.g.groups; ++group) {
      for (const Taps& taps : problem.tap_groups) add_blocks(problem, group, taps);
    }
  }

  int64_t columns() const { return columns_; }  // outputs in a panel
  int64_t panels() const { return panels_; }    // of a group
  int64_t group_outputs() const { return group_outputs_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  const A* at(size_t block) const { return data_ + blocks_[block].place; }

  int64_t size() const { return end_of(blocks_.back()); }  // elements

  // Packs the weight into memory of that size, which must outlive this object.
  void pack(const Context& context, const Problem<T>& problem, A* memory) {
    constexpr int64_t kGrain = 8;
    data_ = memory;
    const int64_t taps = problem.g.taps();
    const DenseWeight<T> weight(problem);
    const auto count = static_cast<int64_t>(problem.chunks.size());
    context.parallel_for(count * panels_, kGrain, [&](int64_t begin, int64_t end) {
      const Scratch<int64_t> places(kChunk * taps);
      for (int64_t task = begin; task < end; ++task) {
        const Chunk& chunk = problem.chunks[task / panels_];
        const int64_t panel = task % panels_, first = panel * columns_;
        place_weights(chunk, panel, taps, places.data());
        kernels<T>().pack(weight.data() + (chunk.group * group_outputs_ + first) * weight.step() +
                              (chunk.first - chunk.group * problem.g.group_channels) * taps,
                          weight.step(), std::min(columns_, group_outputs_ - first),
                          chunk.channels * taps, places.data(), memory);
      }
    });
  }

 private:
  int64_t end_of(const Block& block) const {
    return block.place + block.depth * panels_ * columns_;
  }

  void add_blocks(const Problem<T>& problem, int64_t group, const Taps& taps) {
    bool fresh = true;
    for (const Chunk& chunk : problem.chunks) {
      if (chunk.group != group) continue;
      const int64_t depth = taps.count * chunk.channels;
      if (fresh || blocks_.back().depth + depth > kDepth) {
        const int64_t place = blocks_.empty() ? 0 : end_of(blocks_.back());
        blocks_.push_back({group, taps});
        blocks_.back().place = place;
        fresh = false;
      }
      Block& block = blocks_.back();
      block.parts.push_back({chunk, {chunk.channels, taps.count, block.depth}});
      block.depth += depth;
    }
  }

  // Where the weights [channel][tap] of a chunk go.
  void place_weights(const Chunk& chunk, int64_t panel, int64_t all, int64_t* places) const {
    for (const Block& block : blocks_) {
      if (chunk.first < block.parts.front().chunk.first) continue;
      if (chunk.first > block.parts.back().chunk.first) continue;
      for (const Block::Part& part : block.parts) {
        if (part.chunk.first != chunk.first) continue;
        const int64_t at = block.place + (panel * block.depth + part.piece.first) * columns_;
        for (int64_t c = 0; c < chunk.channels; ++c) {
          for (int64_t tap = 0; tap < block.taps.count; ++tap) {
            places[c * all + block.taps.first + tap] = at + (tap * chunk.channels + c) * columns_;
          }
        }
      }
    }
  }

  int64_t columns_, group_outputs_, panels_;
  std::vector<Block> blocks_;
  const A* data_ = nullptr;
};

// The packed form of a weight that never changes: made in the first call, which knows the groups.
class KeptWeights {
 public:
  template <typename T>
  std::shared_ptr<const PackedWeights<T>> of(const Context& context, const Problem<T>& problem) {
    const std::lock_guard lock(mutex_);
    const Geometry<int64_t>& g = problem.g;
    if (!kept_ || g.groups != groups_ || g.offset_groups != offset_groups_) {
      const auto made = std::make_shared<Owner<T>>(problem);
      made->weights.pack(context, problem, made->memory.get());
      groups_ = g.groups, offset_groups_ = g.offset_groups;
      kept_ = made;
    }
    const auto owner = std::static_pointer_cast<const Owner<T>>(kept_);
    return {owner, &owner->weights};
  }

 private:
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kAlignment}); }
  };

  template <typename T>
  struct Owner {
    using A = Compute<T>;
    explicit Owner(const Problem<T>& problem)
        : weights(problem),
          memory(static_cast<A*>(
              ::operator new(weights.size() * sizeof(A), std::align_val_t{kAlignment}))) {}
    PackedWeights<T> weights;
    std::unique_ptr<A, Free> memory;
  };

  std::mutex mutex_;
  std::shared_ptr<const void> kept_;  // an Owner of the one type that the op computes with
  int64_t groups_ = 0, offset_groups_ = 0;
};

}  // namespace custom_ops::deform_conv2d
