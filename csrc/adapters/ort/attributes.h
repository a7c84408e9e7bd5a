// Reads an op's attributes from a node, when a kernel is made and when shapes are inferred.
#pragma once

#include <optional>
#include <vector>

#include "adapters/ort/status.h"
#include "core/op.h"

namespace custom_ops::ort {

// Where a node's attributes are read: each function gives nothing where the node has none of that
// name and type.
class AttributeSource {
 public:
  virtual ~AttributeSource() = default;
  virtual std::optional<int64_t> integer(const char* name) const = 0;
  virtual std::optional<double> real(const char* name) const = 0;
  virtual std::optional<std::string> string(const char* name) const = 0;
  virtual std::optional<std::vector<int64_t>> integers(const char* name) const = 0;
};

class KernelAttributes final : public AttributeSource {
 public:
  KernelAttributes(const OrtApi* api, const OrtKernelInfo* info) : api_(api), info_(info) {}
  std::optional<int64_t> integer(const char* name) const override;
  std::optional<double> real(const char* name) const override;
  std::optional<std::string> string(const char* name) const override;
  std::optional<std::vector<int64_t>> integers(const char* name) const override;

 private:
  const OrtApi* api_;
  const OrtKernelInfo* info_;
};

class InferenceAttributes final : public AttributeSource {
 public:
  InferenceAttributes(const OrtApi* api, const OrtShapeInferContext* context)
      : api_(api), context_(context) {}
  std::optional<int64_t> integer(const char* name) const override;
  std::optional<double> real(const char* name) const override;
  std::optional<std::string> string(const char* name) const override;
  std::optional<std::vector<int64_t>> integers(const char* name) const override;

 private:
  // The attribute's bytes, where it has this type.
  std::optional<std::vector<char>> read(const char* name, AttributeType type) const;

  const OrtApi* api_;
  const OrtShapeInferContext* context_;
};

// The op with the node's attributes, or their initial values; throws where one has another type.
std::unique_ptr<Op> create_op(const OpType& type, const AttributeSource& source);

}  // namespace custom_ops::ort
