// The list of ops, and the choice of kernels by element type.
#include <algorithm>

#include "core/op.h"

namespace custom_ops {
namespace {

std::vector<const OpType*>& mutable_registry() {
  static auto& types = *new std::vector<const OpType*>;  // outlives threads that still call ops
  return types;
}

// "float32, float64 or float16"
std::string alternatives(const std::vector<std::string>& names) {
  std::string result;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) result += i + 1 == names.size() ? " or " : ", ";
    result += names[i];
  }
  return result;
}

// The types that signatures starting with these inputs give to the input that follows.
std::vector<std::string> choices(const OpType& type, size_t input,
                                 std::span<const std::optional<std::string>> dtypes) {
  std::vector<std::string> names;
  for (const Signature& signature : type.signatures) {
    bool fits = true;
    for (size_t i = 0; i < input; ++i) {
      fits = fits && (!dtypes[i] || *dtypes[i] == name(signature.inputs[i]));
    }
    const std::string candidate = name(signature.inputs[input]);
    if (fits && std::find(names.begin(), names.end(), candidate) == names.end()) {
      names.push_back(candidate);
    }
  }
  return names;
}

}  // namespace

const std::vector<const OpType*>& registry() { return mutable_registry(); }

void add_to_registry(std::unique_ptr<const OpType> type) {
  auto& types = mutable_registry();
  const auto by_name = [](const OpType* a, const OpType* b) { return a->name < b->name; };
  types.insert(std::upper_bound(types.begin(), types.end(), type.get(), by_name), type.get());
  type.release();  // ops live as long as the library
}

std::optional<size_t> find_signature(const OpType& type,
                                     std::span<const std::optional<DType>> dtypes) {
  if (dtypes.size() != type.inputs.size()) return std::nullopt;
  for (size_t s = 0; s < type.signatures.size(); ++s) {
    bool fits = true;
    for (size_t i = 0; i < dtypes.size(); ++i) {
      fits = fits &&
             (dtypes[i] ? *dtypes[i] == type.signatures[s].inputs[i] : type.inputs[i].optional());
    }
    if (fits) return s;
  }
  return std::nullopt;
}

void refuse_dtypes(const OpType& type, std::span<const std::optional<std::string>> dtypes) {
  if (dtypes.size() != type.inputs.size()) {
    throw RuleError(
        text(type.name, ": inputs must be ", type.inputs.size(), ", got ", dtypes.size()));
  }
  for (size_t i = 0; i < dtypes.size(); ++i) {
    if (!dtypes[i]) {
      if (type.inputs[i].optional()) continue;
      throw RuleError(text(type.name, ": ", type.inputs[i].name, " must be given, got None"));
    }
    const std::vector<std::string> names = choices(type, i, dtypes);
    if (std::find(names.begin(), names.end(), *dtypes[i]) != names.end()) continue;
    const bool follows = i > 0 && names.size() == 1 && dtypes[0] && names[0] == *dtypes[0];
    const std::string rule =
        follows ? text("must have the dtype of ", type.inputs[0].name, " (", names[0], ")")
                : text("must be ", alternatives(names));
    throw RuleError(text(type.name, ": ", type.inputs[i].name, " ", rule, ", got ", *dtypes[i],
                         "; convert it first"));
  }
  throw std::logic_error(type.name + ": no kernels for these dtypes");
}

}  // namespace custom_ops
