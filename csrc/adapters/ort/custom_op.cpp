// Any registered op as a custom op of ONNX Runtime, and the entry point that a session calls.
#include <algorithm>
#include <climits>
#include <map>
#include <memory>
#include <mutex>

#include "adapters/ort/attributes.h"
#include "adapters/ort/context.h"
#include "adapters/ort/shape_inference.h"
#include "adapters/ort/status.h"
#include "adapters/ort/tensor_info.h"

namespace custom_ops::ort {
namespace {

std::vector<int64_t> row_major(const std::vector<int64_t>& dims) {
  std::vector<int64_t> strides(dims.size());
  int64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= dims[axis];
  }
  return strides;
}

// A tensor of the session with the memory that its view refers to.
struct HostTensor {
  std::vector<int64_t> dims, strides;
  void* data = nullptr;
  Tensor view() const { return {data, dims, strides}; }
};

class Kernel {
 public:
  Kernel(const OrtApi* api, const OpType& type, size_t signature, const OrtKernelInfo* info)
      : api_(api),
        type_(type),
        signature_(signature),
        op_(create_op(type, KernelAttributes(api, info))) {
    // A list of bool has no span.
    const auto constant = std::make_unique<bool[]>(type.inputs.size());
    for (size_t i = 0; i < type.inputs.size(); ++i) {
      int is_constant = 0;  // asking for an input that is left out fails
      const OrtValue* value = nullptr;
      constant[i] =
          succeeded(api, KernelInfoGetConstantInput::call(api, info, i, &is_constant, &value)) &&
          is_constant != 0;
    }
    op_->set_constant_inputs({constant.get(), type.inputs.size()});
  }

  void compute(OrtKernelContext* context) const {
    std::vector<HostTensor> inputs(type_.inputs.size());
    std::vector<std::optional<Tensor>> input_views(inputs.size());
    std::vector<Shape<int64_t>> shapes(inputs.size());
    std::vector<const Shape<int64_t>*> shape_pointers(inputs.size());
    size_t given = 0;
    check(api_, KernelContextGetInputCount::call(api_, context, &given));
    for (size_t i = 0; i < std::min(given, inputs.size()); ++i) {
      const OrtValue* value = nullptr;
      check(api_, KernelContextGetInput::call(api_, context, i, &value));
      if (value == nullptr) continue;
      inputs[i] = read(const_cast<OrtValue*>(value));
      input_views[i] = inputs[i].view();
      shapes[i] = Shape<int64_t>(inputs[i].dims);
      shape_pointers[i] = &shapes[i];
    }
    const Shapes<int64_t> results = op_->infer(shape_pointers);

    std::vector<HostTensor> outputs;
    std::vector<Tensor> output_views;
    outputs.reserve(results.size());
    for (size_t i = 0; i < results.size(); ++i) {
      const std::vector<int64_t>& dims = results[i].dims();
      OrtValue* value = nullptr;
      check(api_, KernelContextGetOutput::call(api_, context, i, dims.data(), dims.size(), &value));
      outputs.push_back({dims, row_major(dims), data(value)});
      output_views.push_back(outputs.back().view());
    }
    op_->compute(signature_, SessionContext(api_, context), input_views, output_views);
  }

  const OrtApi* api() const { return api_; }

 private:
  void* data(OrtValue* value) const {
    void* data = nullptr;
    check(api_, GetTensorMutableData::call(api_, value, &data));
    return data;
  }

  HostTensor read(OrtValue* value) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_, GetTensorTypeAndShape::call(api_, value, &info));
    const std::vector<int64_t> dims = dims_of(api_, OwnedInfo(api_, info).get());
    return {dims, row_major(dims), data(value)};
  }

  const OrtApi* api_;
  const OpType& type_;
  size_t signature_;
  std::unique_ptr<Op> op_;
};

// What ONNX Runtime asks of an op, for one of its signatures.
struct CustomOp : OrtCustomOp {
  CustomOp(const OrtApi* api_table, bool infers, const OpType& op_type, size_t op_signature)
      : OrtCustomOp{}, api(api_table), type(op_type), signature(op_signature) {
    version = kApiVersion;
    GetName = [](const OrtCustomOp* op) { return self(op).type.onnx_name.c_str(); };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // CPU
    GetInputType = [](const OrtCustomOp* op, size_t i) {
      return onnx_type(self(op).kinds().inputs[i]);
    };
    GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).type.inputs.size(); };
    GetOutputType = [](const OrtCustomOp* op, size_t i) {
      return onnx_type(self(op).kinds().outputs[i]);
    };
    GetOutputTypeCount = [](const OrtCustomOp* op) { return self(op).type.outputs.size(); };
    GetInputCharacteristic = [](const OrtCustomOp* op, size_t i) -> int {
      return self(op).type.inputs[i].optional() ? kOptional : kRequired;
    };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return kRequired; };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
    GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
    GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
    CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi* table, const OrtKernelInfo* info,
                        void** kernel) {
      return guarded(table,
                     [&] { *kernel = new Kernel(table, self(op).type, self(op).signature, info); });
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const auto& self = *static_cast<Kernel*>(kernel);
      return guarded(self.api(), [&] { self.compute(context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    if (infers) {
      InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) {
        return guarded(self(op).api, [&] { infer_shapes(self(op).api, self(op).type, context); });
      };
    }
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  }

  static const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }
  const Signature& kinds() const { return type.signatures[signature]; }

  const OrtApi* api;
  const OpType& type;
  size_t signature;
};

// The ops of one runtime; two may be loaded in a process. Lives as long as the library.
struct Domain {
  Domain(const OrtApi* api, const std::string& release) {
    check(api, CreateCustomOpDomain::call(api, "custom_ops", &handle));
    for (const OpType* type : registry()) {
      if (type->onnx_name.empty()) continue;
      const bool infers = infers_shapes(*type, release);
      for (size_t s = 0; s < type->signatures.size(); ++s) {
        ops.push_back(std::make_unique<CustomOp>(api, infers, *type, s));
        check(api, CustomOpDomainAdd::call(api, handle, ops.back().get()));
      }
    }
  }

  OrtCustomOpDomain* handle = nullptr;
  std::vector<std::unique_ptr<CustomOp>> ops;
};

OrtCustomOpDomain* domain_of(const OrtApi* api, const std::string& release) {
  static std::mutex mutex;
  static auto& domains = *new std::map<const OrtApi*, std::unique_ptr<Domain>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Domain>& domain = domains[api];
  if (!domain) domain = std::make_unique<Domain>(api, release);
  return domain->handle;
}

}  // namespace
}  // namespace custom_ops::ort

extern "C" CUSTOM_OPS_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                          const OrtApiBase* base) {
  using namespace custom_ops::ort;
  const OrtApi* api = base->GetApi(kApiVersion);
  if (api == nullptr) {
    const std::string message =
        custom_ops::text("custom_ops: onnxruntime must be ", kOldestRelease, " or later, got ",
                         base->GetVersionString(), "; pip install -U onnxruntime");
    return CreateStatus::call(base->GetApi(1), kFail, message.c_str());
  }
  return guarded(api, [&] {
    check(api, AddCustomOpDomain::call(api, options, domain_of(api, base->GetVersionString())));
  });
}
