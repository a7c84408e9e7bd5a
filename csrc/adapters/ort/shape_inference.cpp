// The shapes of an op's outputs, when ONNX Runtime loads a model.
#include "adapters/ort/shape_inference.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>

#include "adapters/ort/attributes.h"
#include "adapters/ort/tensor_info.h"

namespace custom_ops::ort {
namespace {

// Sizes that the model does not tell: what is computed from one is unknown, and every check holds.
// The handle is a size's name, which an output keeps where it takes the size over from an input.
// Each has one: the runtime takes an unknown size without a name for the size -1.
class UnknownSizes final : public SymbolicHost {
 public:
  void retain(void*) override {}
  void release(void*) override {}
  void* from_int(int64_t) override { return nullptr; }
  void* compute(Arithmetic, void*, void*) override { return fresh(); }
  bool compare(Comparison, void*, void*) override { return true; }
  std::string text(void*) override { return "?"; }

  SymbolicDim named(const char* name) {
    const bool has_name = name != nullptr && *name != '\0';
    return SymbolicDim(this, has_name ? &names_.emplace_back(name) : fresh());
  }

 private:
  std::string* fresh() {
    static std::atomic<int64_t> next = 0;  // equal names are equal sizes in all of a model
    return &names_.emplace_back(custom_ops::text("custom_ops_size_", next++));
  }

  std::deque<std::string> names_;
};

}  // namespace

// Releases before 1.24 crash, before the op is asked, where a node leaves an optional input out.
bool infers_shapes(const OpType& type, const std::string& release) {
  const auto optional = [](const InputSpec& input) { return input.optional(); };
  if (std::none_of(type.inputs.begin(), type.inputs.end(), optional)) return true;
  return std::atoi(release.substr(release.find('.') + 1).c_str()) >= 24;
}

void infer_shapes(const OrtApi* api, const OpType& type, OrtShapeInferContext* context) {
  UnknownSizes sizes;
  size_t given = 0;
  check(api, ShapeInferContextGetInputCount::call(api, context, &given));
  std::vector<Shape<SymbolicDim>> shapes(type.inputs.size());
  std::vector<const Shape<SymbolicDim>*> pointers(shapes.size());
  std::vector<int> element_types(shapes.size());
  for (size_t i = 0; i < std::min(given, shapes.size()); ++i) {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    if (!succeeded(api, ShapeInferContextGetInputTypeShape::call(api, context, i, &info))) {
      continue;
    }
    std::vector<SymbolicDim> dims;
    const std::vector<int64_t> known = dims_of(api, info);
    std::vector<const char*> names(known.size());
    check(api, GetSymbolicDimensions::call(api, info, names.data(), names.size()));
    for (size_t axis = 0; axis < known.size(); ++axis) {
      dims.push_back(known[axis] < 0 ? sizes.named(names[axis]) : SymbolicDim(known[axis]));
    }
    if (dims.empty()) continue;  // so the runtime shows an unknown rank, and an input left out
    check(api, GetTensorElementType::call(api, info, &element_types[i]));
    shapes[i] = Shape<SymbolicDim>(std::move(dims));
    pointers[i] = &shapes[i];
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (pointers[i] == nullptr && !type.inputs[i].optional()) return;
  }
  // The runtime asks one op for all of its signatures.
  const auto fits = [&](const Signature& candidate) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      if (pointers[i] && element_types[i] != onnx_type(candidate.inputs[i])) return false;
    }
    return true;
  };
  const auto kinds = std::find_if(type.signatures.begin(), type.signatures.end(), fits);
  if (kinds == type.signatures.end()) return;  // the runtime says what is wrong with the types

  const auto results = create_op(type, InferenceAttributes(api, context))->infer(pointers);
  for (size_t i = 0; i < results.size(); ++i) {
    std::vector<int64_t> dims;
    std::vector<const char*> names;
    for (const SymbolicDim& dim : results[i].dims()) {
      dims.push_back(dim.is_plain() ? dim.value() : -1);
      names.push_back(dim.is_plain() ? "" : static_cast<std::string*>(dim.handle())->c_str());
    }
    OrtTensorTypeAndShapeInfo* created = nullptr;
    check(api, CreateTensorTypeAndShapeInfo::call(api, &created));
    const OwnedInfo info(api, created);
    check(api, SetTensorElementType::call(api, info.get(), onnx_type(kinds->outputs[i])));
    check(api, SetDimensions::call(api, info.get(), dims.data(), dims.size()));
    check(api, SetSymbolicDimensions::call(api, info.get(), names.data(), names.size()));
    check(api, ShapeInferContextSetOutputTypeShape::call(api, context, i, info.get()));
  }
}

}  // namespace custom_ops::ort
