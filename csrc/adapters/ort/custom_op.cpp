// Any registered op as a custom op of ONNX Runtime, and the entry point that a session calls.
#include <climits>
#include <map>
#include <memory>
#include <mutex>

#include "adapters/ort/attributes.h"
#include "adapters/ort/context.h"
#include "adapters/ort/status.h"

namespace custom_ops::ort {
namespace {

// Numbers of ONNX's TensorProto.DataType.
int onnx_type(DType dtype) {
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

// A size that the model does not tell: what is computed from it is unknown, and every check holds.
class UnknownHost final : public SymbolicHost {
 public:
  void retain(void*) override {}
  void release(void*) override {}
  void* from_int(int64_t) override { return nullptr; }
  void* compute(Arithmetic, void*, void*) override { return nullptr; }
  bool compare(Comparison, void*, void*) override { return true; }
  std::string text(void*) override { return "?"; }
};

SymbolicDim unknown() {
  static UnknownHost host;
  return SymbolicDim(&host, nullptr);
}

class ShapeInfo {
 public:
  ShapeInfo(const OrtApi* api, OrtTensorTypeAndShapeInfo* info) : api_(api), info_(info) {}
  ~ShapeInfo() { ReleaseTensorTypeAndShapeInfo::call(api_, info_); }
  ShapeInfo(const ShapeInfo&) = delete;
  ShapeInfo& operator=(const ShapeInfo&) = delete;

  const OrtTensorTypeAndShapeInfo* get() const { return info_; }
  std::vector<int64_t> dims() const {
    size_t rank = 0;
    check(api_, GetDimensionsCount::call(api_, info_, &rank));
    std::vector<int64_t> dims(rank);
    check(api_, GetDimensions::call(api_, info_, dims.data(), rank));
    return dims;
  }

 private:
  const OrtApi* api_;
  OrtTensorTypeAndShapeInfo* info_;
};

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
        op_(create_op(type, KernelAttributes(api, info))) {}

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
    const std::vector<int64_t> dims = ShapeInfo(api_, info).dims();
    return {dims, row_major(dims), data(value)};
  }

  const OrtApi* api_;
  const OpType& type_;
  size_t signature_;
  std::unique_ptr<Op> op_;
};

// What ONNX Runtime asks of an op, for one of its signatures.
struct CustomOp : OrtCustomOp {
  CustomOp(const OrtApi* api_table, const OpType& op_type, size_t op_signature)
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
      return guarded(table, [&] {
        *kernel = new Kernel(table, self(op).type, self(op).signature, info);
      });
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      const auto& self = *static_cast<Kernel*>(kernel);
      return guarded(self.api(), [&] { self.compute(context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) {
      return guarded(self(op).api, [&] { self(op).infer(context); });
    };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return INT_MAX; };
  }

  static const CustomOp& self(const OrtCustomOp* op) { return *static_cast<const CustomOp*>(op); }
  const Signature& kinds() const { return type.signatures[signature]; }

  void infer(OrtShapeInferContext* context) const {
    size_t given = 0;
    check(api, ShapeInferContextGetInputCount::call(api, context, &given));
    std::vector<Shape<SymbolicDim>> shapes(type.inputs.size());
    std::vector<const Shape<SymbolicDim>*> pointers(shapes.size());
    for (size_t i = 0; i < std::min(given, shapes.size()); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      if (!succeeded(api, ShapeInferContextGetInputTypeShape::call(api, context, i, &info))) {
        continue;
      }
      std::vector<SymbolicDim> dims;
      for (int64_t dim : ShapeInfo(api, info).dims()) {
        dims.push_back(dim < 0 ? unknown() : SymbolicDim(dim));
      }
      // The runtime shows a tensor of unknown rank, and an input left out, as one of rank 0.
      if (dims.empty()) {
        if (type.inputs[i].optional()) continue;
        return;
      }
      shapes[i] = Shape<SymbolicDim>(std::move(dims));
      pointers[i] = &shapes[i];
    }
    for (size_t i = 0; i < shapes.size(); ++i) {
      if (pointers[i] == nullptr && !type.inputs[i].optional()) return;
    }
    const auto results = create_op(type, InferenceAttributes(api, context))->infer(pointers);
    for (size_t i = 0; i < results.size(); ++i) {
      std::vector<int64_t> dims;
      for (const SymbolicDim& dim : results[i].dims()) {
        dims.push_back(dim.is_plain() ? dim.value() : -1);
      }
      OrtTensorTypeAndShapeInfo* created = nullptr;
      check(api, CreateTensorTypeAndShapeInfo::call(api, &created));
      const ShapeInfo info(api, created);
      check(api, SetDimensions::call(api, created, dims.data(), dims.size()));
      check(api, ShapeInferContextSetOutputTypeShape::call(api, context, i, info.get()));
    }
  }

  const OrtApi* api;
  const OpType& type;
  size_t signature;
};

// The ops of one runtime; two may be loaded in a process. Lives as long as the library.
struct Domain {
  explicit Domain(const OrtApi* api) {
    check(api, CreateCustomOpDomain::call(api, "custom_ops", &handle));
    for (const OpType* type : registry()) {
      if (type->onnx_name.empty()) continue;
      for (size_t s = 0; s < type->signatures.size(); ++s) {
        ops.push_back(std::make_unique<CustomOp>(api, *type, s));
        check(api, CustomOpDomainAdd::call(api, handle, ops.back().get()));
      }
    }
  }

  OrtCustomOpDomain* handle = nullptr;
  std::vector<std::unique_ptr<CustomOp>> ops;
};

OrtCustomOpDomain* domain_of(const OrtApi* api) {
  static std::mutex mutex;
  static auto& domains = *new std::map<const OrtApi*, std::unique_ptr<Domain>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<Domain>& domain = domains[api];
  if (!domain) domain = std::make_unique<Domain>(api);
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
  return guarded(api, [&] { check(api, AddCustomOpDomain::call(api, options, domain_of(api))); });
}
