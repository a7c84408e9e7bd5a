// An op as the adapters see it: what it takes and gives, and how to call it, with types erased.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/context.h"
#include "core/dtype.h"
#include "core/shape.h"
#include "core/tensor.h"

#define CUSTOM_OPS_EXPORT __attribute__((visibility("default")))

namespace custom_ops {

// The value that an exported model carries where the caller left an optional input out: a tensor
// of one element, broadcast by the op, that changes nothing.
struct Neutral {
  double value;
  int64_t rank;
};

struct InputSpec {
  const char* name;
  std::optional<Neutral> neutral = std::nullopt;  // given for optional inputs, and only for them
  constexpr bool optional() const { return neutral.has_value(); }
};

using AttributeValue = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>>;

struct AttributeSpec {
  std::string name;
  std::string onnx_name;
  AttributeValue initial;
};

// The element types of one set of kernels.
struct Signature {
  std::vector<DType> inputs;
  std::vector<DType> outputs;
};

// How torch lays out the outputs: row-major, or in memory order of the first input.
enum class Layout { kContiguous, kLikeFirstInput };

template <typename Dim>
using Shapes = std::vector<Shape<Dim>>;
template <typename Dim>
using ShapePointers = std::span<const Shape<Dim>* const>;  // null: left out

// An op with its attributes set.
class Op {
 public:
  virtual ~Op() = default;
  // Checks the inputs and gives the shapes of the outputs.
  virtual Shapes<int64_t> infer(ShapePointers<int64_t> inputs) const = 0;
  virtual Shapes<SymbolicDim> infer(ShapePointers<SymbolicDim> inputs) const = 0;
  // Says which inputs are the same tensor in every call to come, so that what is made of them can
  // be kept. Without it none are.
  virtual void set_constant_inputs(std::span<const bool>) {}
  // Computes with the kernels of signatures()[signature]. Expects shapes that infer has passed.
  virtual void compute(size_t signature, const Context& context,
                       std::span<const std::optional<Tensor>> inputs,
                       std::span<const Tensor> outputs) const = 0;
};

class OpType {
 public:
  virtual ~OpType() = default;
  virtual std::unique_ptr<Op> create(std::span<const AttributeValue> attributes) const = 0;

  std::string name;       // in torch and Python
  std::string onnx_name;  // in ONNX; empty for an op that serves torch only
  std::vector<InputSpec> inputs;
  std::vector<std::string> outputs;
  std::vector<AttributeSpec> attributes;
  std::vector<Signature> signatures;
  Layout layout = Layout::kContiguous;
};

// Every registered op, by name.
CUSTOM_OPS_EXPORT const std::vector<const OpType*>& registry();

// The signature that serves inputs of these types (empty: left out), if there is one.
CUSTOM_OPS_EXPORT std::optional<size_t> find_signature(
    const OpType& type, std::span<const std::optional<DType>> dtypes);

// Says why no signature serves inputs of these types, which may be types that no op has.
[[noreturn]] CUSTOM_OPS_EXPORT void refuse_dtypes(
    const OpType& type, std::span<const std::optional<std::string>> dtypes);

// Adds an op to the registry.
void add_to_registry(std::unique_ptr<const OpType> type);

}  // namespace custom_ops
