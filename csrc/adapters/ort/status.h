// Statuses of ONNX Runtime as C++ exceptions, and back.
#pragma once

#include <stdexcept>
#include <string>

#include "adapters/ort/ort_abi.h"
#include "core/shape.h"

namespace custom_ops::ort {

// Whether the call succeeded; frees the status.
inline bool succeeded(const OrtApi* api, OrtStatus* status) {
  if (status == nullptr) return true;
  ReleaseStatus::call(api, status);
  return false;
}

inline void check(const OrtApi* api, OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = GetErrorMessage::call(api, status);
  ReleaseStatus::call(api, status);
  throw std::runtime_error(message);
}

// Runs the function and gives what it throws as a status, so that nothing leaves through C.
template <typename Function>
OrtStatus* guarded(const OrtApi* api, const Function& function) {
  try {
    function();
    return nullptr;
  } catch (const RuleError& error) {
    return CreateStatus::call(api, kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return CreateStatus::call(api, kFail, error.what());
  } catch (...) {
    return CreateStatus::call(api, kFail, "custom_ops: an unknown exception was thrown");
  }
}

}  // namespace custom_ops::ort
