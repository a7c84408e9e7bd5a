// Any registered op as a custom op of ONNX Runtime, and the entry point that a session calls.
#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <set>

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
// The handle is its name, which an output keeps where it takes the size over from an input.
class UnknownHost final : public SymbolicHost {
 public:
  void retain(void*) override {}
  void release(void*) override {}
  void* from_int(int64_t) override { return nullptr; }
  void* compute(Arithmetic, void*, void*) override { return fresh(); }
  bool compare(Comparison, void*, void*) override { return true; }
  std::string text(void*) override { return "?"; }

  // Names live as long as the library: there are as many as unknown sizes in models.
  void* named(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return const_cast<std::string*>(&*names_.insert(name).first);
  }
  void* fresh() { return named(custom_ops::text("custom_ops_size_", next_++)); }

 private:
  std::mutex mutex_;
  std::set<std::string> names_;
  std::atomic<int64_t> next_ = 0;
};

SymbolicDim unknown(const char* name) {
  static auto& host = *new UnknownHost;
  const bool has_name = name != nullptr && *name != '\0';
  return SymbolicDim(&host, has_name ? host.named(name) : host.fresh());
}

std::vector<int64_t> dims_of(const OrtApi* api, const OrtTensorTypeAndShapeInfo* info) {
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
        return guarded(self(op).api, [&] { self(op).infer(context); });
      };
    }
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
        dims.push_back(known[axis] < 0 ? unknown(names[axis]) : SymbolicDim(known[axis]));
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

  const OrtApi* api;
  const OpType& type;
  size_t signature;
};

// Releases before 1.24 crash, before the op is asked, where a node leaves an optional input out.
bool infers_shapes(const OpType& type, const std::string& release) {
  const auto optional = [](const InputSpec& input) { return input.optional(); };
  if (std::none_of(type.inputs.begin(), type.inputs.end(), optional)) return true;
  return std::atoi(release.substr(release.find('.') + 1).c_str()) >= 24;
}

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
