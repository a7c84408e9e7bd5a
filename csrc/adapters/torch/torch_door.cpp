// Any registered op as a torch op, through LibTorch's stable ABI.
#include <Python.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cctype>
#include <charconv>
#include <stdexcept>
#include <utility>

#include "core/op.h"

namespace custom_ops {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::detail::from;
using torch::stable::detail::to;
using StableTensor = torch::stable::Tensor;

// Element types that ops may have, in both vocabularies.
constexpr std::pair<ScalarType, DType> kTypes[] = {
    {ScalarType::Float, DType::kFloat32}, {ScalarType::Double, DType::kFloat64},
    {ScalarType::Half, DType::kFloat16},  {ScalarType::BFloat16, DType::kBFloat16},
    {ScalarType::Int, DType::kInt32},     {ScalarType::Long, DType::kInt64},
    {ScalarType::Bool, DType::kBool},
};

ScalarType scalar_type(DType dtype) {
  for (const auto& [scalar, ours] : kTypes) {
    if (ours == dtype) return scalar;
  }
  throw std::logic_error("custom_ops: an element type that torch does not have");
}

std::optional<DType> dtype_of_scalar(ScalarType type) {
  for (const auto& [scalar, ours] : kTypes) {
    if (scalar == type) return ours;
  }
  return std::nullopt;
}

// The name that torch's Python side gives the type.
std::string python_name(ScalarType type) {
  if (const auto ours = dtype_of_scalar(type)) return name(*ours);
  constexpr std::pair<ScalarType, const char*> others[] = {
      {ScalarType::Byte, "uint8"},
      {ScalarType::Char, "int8"},
      {ScalarType::Short, "int16"},
      {ScalarType::UInt16, "uint16"},
      {ScalarType::UInt32, "uint32"},
      {ScalarType::UInt64, "uint64"},
      {ScalarType::ComplexHalf, "complex32"},
      {ScalarType::ComplexFloat, "complex64"},
      {ScalarType::ComplexDouble, "complex128"}};
  for (const auto& [scalar, other] : others) {
    if (scalar == type) return other;
  }
  std::string result = torch::headeronly::toString(type);  // Float8_e5m2 and its like
  for (char& c : result) c = static_cast<char>(std::tolower(c));
  return result;
}

class TorchContext final : public Context {
 public:
  void parallel_for(int64_t count, int64_t grain, RangeFunction function) const override {
    torch::stable::parallel_for(0, count, grain, function);
  }

  int64_t tasks() const override { return torch::stable::get_num_threads(); }
};

// Attributes as torch's schemas and stacks have them.
struct Schema {
  std::string operator()(int64_t value) const { return text("int ", name, "=", value); }
  std::string operator()(bool value) const {
    return text("bool ", name, value ? "=True" : "=False");
  }
  std::string operator()(const std::string& value) const {
    return text("str ", name, "=\"", value, "\"");
  }
  std::string operator()(const std::vector<int64_t>& value) const {
    return text("int[] ", name, "=", value);
  }
  std::string operator()(double value) const {
    char digits[32];
    const auto end = std::to_chars(std::begin(digits), std::end(digits), value).ptr;
    std::string shortest(digits, end);
    if (shortest.find_first_of(".en") == std::string::npos) shortest += ".0";
    return text("float ", name, "=", shortest);
  }
  const std::string& name;
};

std::string schema_of(const OpType& type) {
  std::string schema = type.name + "(";
  const char* separator = "";
  for (const InputSpec& input : type.inputs) {
    schema += text(separator, input.optional() ? "Tensor? " : "Tensor ", input.name,
                   input.optional() ? "=None" : "");
    separator = ", ";
  }
  for (const AttributeSpec& attribute : type.attributes) {
    schema += separator + std::visit(Schema{attribute.name}, attribute.initial);
    separator = ", ";
  }
  schema += ") -> ";
  if (type.outputs.size() == 1) return schema + "Tensor";
  separator = "(";
  for (const std::string& output : type.outputs) {
    schema += text(separator, "Tensor ", output);
    separator = ", ";
  }
  return schema + ")";
}

AttributeValue read_attribute(const AttributeValue& initial, StableIValue value) {
  return std::visit(
      [&](const auto& sample) {
        return AttributeValue(to<std::remove_cvref_t<decltype(sample)>>(value));
      },
      initial);
}

size_t signature_of(const OpType& type, const std::vector<std::optional<StableTensor>>& inputs) {
  std::vector<std::optional<DType>> dtypes;
  bool known = true;
  for (const auto& input : inputs) {
    dtypes.push_back(input ? dtype_of_scalar(input->scalar_type()) : std::nullopt);
    known = known && dtypes.back().has_value() == input.has_value();
  }
  if (const auto found = find_signature(type, dtypes); known && found) return *found;
  std::vector<std::optional<std::string>> names;
  for (const auto& input : inputs) {
    names.push_back(input ? std::optional(python_name(input->scalar_type())) : std::nullopt);
  }
  refuse_dtypes(type, names);
}

Tensor view(const StableTensor& tensor) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  return {tensor.data_ptr(), {sizes.data(), sizes.size()}, {strides.data(), strides.size()}};
}

// torch::stable::empty_like looks its op up by name in each call, which takes longer than the rest.
StableTensor allocate_like(const StableTensor& tensor) {
  if (!tensor.is_contiguous()) return torch::stable::empty_like(tensor);
  int32_t dtype = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(tensor.dim(), tensor.sizes().data(),
                                                         tensor.strides().data(), dtype,
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return StableTensor(handle);
}

// Takes the arguments from torch's stack, computes, and puts the outputs there.
void call(const OpType& type, StableIValue* stack) {
  const size_t input_count = type.inputs.size();
  std::vector<std::optional<StableTensor>> inputs;
  for (size_t i = 0; i < input_count; ++i) {
    if (type.inputs[i].optional()) {
      inputs.push_back(to<std::optional<StableTensor>>(stack[i]));
    } else {
      inputs.emplace_back(to<StableTensor>(stack[i]));
    }
  }
  std::vector<AttributeValue> attributes;
  for (size_t i = 0; i < type.attributes.size(); ++i) {
    attributes.push_back(read_attribute(type.attributes[i].initial, stack[input_count + i]));
  }

  const size_t signature = signature_of(type, inputs);
  std::vector<Shape<int64_t>> shapes(input_count);
  std::vector<const Shape<int64_t>*> shape_pointers(input_count);
  std::vector<std::optional<Tensor>> views(input_count);
  for (size_t i = 0; i < input_count; ++i) {
    if (!inputs[i]) continue;
    views[i] = view(*inputs[i]);
    shapes[i] = Shape<int64_t>({views[i]->shape.begin(), views[i]->shape.end()});
    shape_pointers[i] = &shapes[i];
  }
  const std::unique_ptr<Op> op = type.create(attributes);
  const Shapes<int64_t> results = op->infer(shape_pointers);

  std::vector<StableTensor> outputs;
  std::vector<Tensor> output_views;
  for (size_t i = 0; i < results.size(); ++i) {
    const std::vector<int64_t>& dims = results[i].dims();
    // register.h sees to it that such an op has one output, of the first input's type.
    outputs.push_back(
        type.layout == Layout::kLikeFirstInput
            ? allocate_like(*inputs[0])
            : torch::stable::empty(dims, scalar_type(type.signatures[signature].outputs[i])));
    if (outputs.back().numel() != element_count(dims)) {
      throw std::logic_error(type.name + ": the output must have the shape of the first input");
    }
    output_views.push_back(view(outputs.back()));
  }
  op->compute(signature, TorchContext(), views, output_views);
  for (size_t i = 0; i < outputs.size(); ++i) stack[i] = from(outputs[i]);
}

// torch calls a plain function: one for each place in the registry.
constexpr size_t kMostOps = 256;

template <size_t kIndex>
void boxed(StableIValue* stack, uint64_t, uint64_t) {
  call(*registry()[kIndex], stack);
}

template <size_t... kIndex>
constexpr std::array<void (*)(StableIValue*, uint64_t, uint64_t), sizeof...(kIndex)> boxed_table(
    std::index_sequence<kIndex...>) {
  return {&boxed<kIndex>...};
}

constexpr auto kBoxed = boxed_table(std::make_index_sequence<kMostOps>());

STABLE_TORCH_LIBRARY(custom_ops, library) {
  for (const OpType* type : registry()) library.def(schema_of(*type).c_str());
}

STABLE_TORCH_LIBRARY_IMPL(custom_ops, CPU, library) {
  const auto& types = registry();
  if (types.size() > kMostOps) throw std::length_error("custom_ops: raise kMostOps");
  for (size_t i = 0; i < types.size(); ++i) library.impl(types[i]->name.c_str(), kBoxed[i]);
}

}  // namespace
}  // namespace custom_ops

// Importing the module loads the library, which registers the ops.
extern "C" CUSTOM_OPS_EXPORT PyObject* PyInit__torch() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_torch", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
