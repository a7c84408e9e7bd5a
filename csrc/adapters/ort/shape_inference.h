// The shapes of an op's outputs, when ONNX Runtime loads a model.
#pragma once

#include <string>

#include "adapters/ort/ort_abi.h"
#include "core/op.h"

namespace custom_ops::ort {

// Whether a release of the runtime can be offered shape inference for an op.
bool infers_shapes(const OpType& type, const std::string& release);

// Tells the runtime what the op's own shape rule says of a node.
void infer_shapes(const OrtApi* api, const OpType& type, OrtShapeInferContext* context);

}  // namespace custom_ops::ort
