// Shapes and element types as ONNX Runtime hands them over.
#pragma once

#include <vector>

#include "adapters/ort/status.h"
#include "core/dtype.h"

namespace custom_ops::ort {

// Numbers of ONNX's TensorProto.DataType.
inline int onnx_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return 1;
    case DType::kInt32:
      return 6;
    case DType::kInt64:
      return 7;
    case DType::kBool:
      return 9;
    case DType::kFloat16:
      return 10;
    case DType::kFloat64:
      return 11;
    case DType::kBFloat16:
      return 16;
  }
  return 0;
}

inline std::vector<int64_t> dims_of(const OrtApi* api, const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  check(api, GetDimensionsCount::call(api, info, &rank));
  std::vector<int64_t> dims(rank);
  check(api, GetDimensions::call(api, info, dims.data(), rank));
  return dims;
}

// Releases an info that the adapter owns: what shape inference lends belongs to the runtime.
class OwnedInfo {
 public:
  OwnedInfo(const OrtApi* api, OrtTensorTypeAndShapeInfo* info) : api_(api), info_(info) {}
  ~OwnedInfo() { ReleaseTensorTypeAndShapeInfo::call(api_, info_); }
  OwnedInfo(const OwnedInfo&) = delete;
  OwnedInfo& operator=(const OwnedInfo&) = delete;
  OrtTensorTypeAndShapeInfo* get() const { return info_; }

 private:
  const OrtApi* api_;
  OrtTensorTypeAndShapeInfo* info_;
};

}  // namespace custom_ops::ort
