// Reads an op's attributes from a node, when a kernel is made and when shapes are inferred.
#include "adapters/ort/attributes.h"

#include <cstring>

namespace custom_ops::ort {
namespace {

[[noreturn]] void wrong_type(const OpType& type, const AttributeSpec& spec, const char* wanted) {
  throw RuleError(text(type.name, ": attribute ", spec.onnx_name, " must be ", wanted,
                       ", got another type; export the model again"));
}

bool is_present(const AttributeSource& source, const char* name) {
  return source.integer(name) || source.real(name) || source.integers(name) || source.string(name);
}

// One attribute, in the type of its initial value.
struct Reader {
  const OpType& type;
  const AttributeSpec& spec;
  const AttributeSource& source;

  template <typename Value>
  AttributeValue found(std::optional<Value> value, const char* wanted) const {
    if (value) return AttributeValue(*value);
    if (is_present(source, spec.onnx_name.c_str())) wrong_type(type, spec, wanted);
    return spec.initial;
  }

  AttributeValue operator()(int64_t) const {
    return found(source.integer(spec.onnx_name.c_str()), "an integer");
  }
  AttributeValue operator()(bool) const {
    const auto value = source.integer(spec.onnx_name.c_str());
    return found(value ? std::optional<bool>(*value != 0) : std::nullopt, "an integer, 0 or 1");
  }
  AttributeValue operator()(double) const {
    return found(source.real(spec.onnx_name.c_str()), "a float");
  }
  AttributeValue operator()(const std::string&) const {
    return found(source.string(spec.onnx_name.c_str()), "a string");
  }
  AttributeValue operator()(const std::vector<int64_t>&) const {
    return found(source.integers(spec.onnx_name.c_str()), "a list of integers");
  }
};

}  // namespace

std::unique_ptr<Op> create_op(const OpType& type, const AttributeSource& source) {
  std::vector<AttributeValue> values;
  for (const AttributeSpec& spec : type.attributes) {
    values.push_back(std::visit(Reader{type, spec, source}, spec.initial));
  }
  return type.create(values);
}

std::optional<int64_t> KernelAttributes::integer(const char* name) const {
  int64_t value;
  if (succeeded(api_, KernelInfoGetAttributeInt64::call(api_, info_, name, &value))) return value;
  return std::nullopt;
}

std::optional<double> KernelAttributes::real(const char* name) const {
  float value;
  if (succeeded(api_, KernelInfoGetAttributeFloat::call(api_, info_, name, &value))) return value;
  return std::nullopt;
}

std::optional<std::string> KernelAttributes::string(const char* name) const {
  size_t size = 0;
  if (!succeeded(api_, KernelInfoGetAttributeString::call(api_, info_, name, nullptr, &size))) {
    return std::nullopt;
  }
  std::string value(size, '\0');
  check(api_, KernelInfoGetAttributeString::call(api_, info_, name, value.data(), &size));
  value.resize(std::strlen(value.c_str()));  // the size counts the zero at the end
  return value;
}

std::optional<std::vector<int64_t>> KernelAttributes::integers(const char* name) const {
  size_t size = 0;
  if (!succeeded(api_, KernelInfoGetAttributeArrayInt64::call(api_, info_, name, nullptr, &size))) {
    return std::nullopt;
  }
  if (size == 0) return std::nullopt;  // so the runtime shows a list of another type, too
  std::vector<int64_t> values(size);
  check(api_, KernelInfoGetAttributeArrayInt64::call(api_, info_, name, values.data(), &size));
  return values;
}

std::optional<std::vector<char>> InferenceAttributes::read(const char* name,
                                                           AttributeType type) const {
  const OrtOpAttr* attribute = nullptr;
  if (!succeeded(api_, ShapeInferContextGetAttribute::call(api_, context_, name, &attribute)) ||
      attribute == nullptr) {
    return std::nullopt;
  }
  // A first call with no room says how much is needed, or fails where the type is another.
  size_t needed = 0;
  const bool fits = succeeded(api_, ReadOpAttr::call(api_, attribute, type, nullptr, 0, &needed));
  std::vector<char> bytes(needed);
  if (needed == 0) return fits ? std::optional(bytes) : std::nullopt;
  if (!succeeded(api_, ReadOpAttr::call(api_, attribute, type, bytes.data(), needed, &needed))) {
    return std::nullopt;
  }
  return bytes;
}

std::optional<int64_t> InferenceAttributes::integer(const char* name) const {
  const auto bytes = read(name, kInt);
  if (!bytes || bytes->size() != sizeof(int64_t)) return std::nullopt;
  int64_t value;
  std::memcpy(&value, bytes->data(), sizeof(value));
  return value;
}

std::optional<double> InferenceAttributes::real(const char* name) const {
  const auto bytes = read(name, kFloat);
  if (!bytes || bytes->size() != sizeof(float)) return std::nullopt;
  float value;
  std::memcpy(&value, bytes->data(), sizeof(value));
  return value;
}

std::optional<std::string> InferenceAttributes::string(const char* name) const {
  const auto bytes = read(name, kString);
  if (!bytes) return std::nullopt;
  return std::string(bytes->begin(), bytes->end());
}

std::optional<std::vector<int64_t>> InferenceAttributes::integers(const char* name) const {
  const auto bytes = read(name, kInts);
  if (!bytes || bytes->empty()) return std::nullopt;
  std::vector<int64_t> values(bytes->size() / sizeof(int64_t));
  std::memcpy(values.data(), bytes->data(), values.size() * sizeof(int64_t));
  return values;
}

}  // namespace custom_ops::ort
