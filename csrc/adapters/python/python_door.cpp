// Any registered op for Python: its spec, its checks and shape rule, its function on NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "adapters/python/python_numbers.h"
#include "adapters/python/thread_pool.h"
#include "core/op.h"
#include "simd/isa.h"
#include "simd/peak.h"

namespace custom_ops::python {
namespace {

const OpType& find(const std::string& name) {
  for (const OpType* type : registry()) {
    if (type->name == name) return *type;
  }
  throw py::key_error("no op named " + name);
}

const char* kind_of(int64_t) { return "an int"; }
const char* kind_of(double) { return "a float"; }
const char* kind_of(bool) { return "a bool"; }
const char* kind_of(const std::string&) { return "a str"; }
const char* kind_of(const std::vector<int64_t>&) { return "a sequence of ints"; }

std::unique_ptr<Op> create(const OpType& type, const py::sequence& attributes) {
  std::vector<AttributeValue> values;
  for (size_t i = 0; i < type.attributes.size(); ++i) {
    const AttributeSpec& spec = type.attributes[i];
    const py::object given = attributes[i];
    values.push_back(std::visit(
        [&](const auto& sample) {
          using Value = std::remove_cvref_t<decltype(sample)>;
          try {
            return AttributeValue(given.cast<Value>());
          } catch (const py::cast_error&) {
            throw py::type_error(text(type.name, ": ", spec.name, " must be ", kind_of(sample),
                                      ", got ", std::string(py::repr(given))));
          }
        },
        spec.initial));
  }
  return type.create(values);
}

using Dtypes = std::vector<std::optional<std::string>>;

size_t signature_of(const OpType& type, const Dtypes& names) {
  constexpr DType kAll[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16,
                            DType::kInt32,   DType::kInt64,   DType::kBool};
  std::vector<std::optional<DType>> dtypes;
  for (const auto& wanted : names) {
    const auto* found = std::find_if(std::begin(kAll), std::end(kAll), [&](DType dtype) {
      return wanted && *wanted == custom_ops::name(dtype);
    });
    if (wanted && found == std::end(kAll)) refuse_dtypes(type, names);
    dtypes.push_back(wanted ? std::optional(*found) : std::nullopt);
  }
  if (const auto found = find_signature(type, dtypes)) return *found;
  refuse_dtypes(type, names);
}

// The names of the outputs' element types.
std::vector<std::string> output_dtypes(const std::string& name, const Dtypes& dtypes) {
  const OpType& type = find(name);
  std::vector<std::string> names;
  for (DType dtype : type.signatures[signature_of(type, dtypes)].outputs) {
    names.emplace_back(custom_ops::name(dtype));
  }
  return names;
}

std::vector<py::tuple> infer(const std::string& name,
                             const std::vector<std::optional<py::sequence>>& given,
                             const py::sequence& attributes) {
  const OpType& type = find(name);
  std::vector<Shape<SymbolicDim>> shapes(given.size());
  std::vector<const Shape<SymbolicDim>*> pointers(given.size());
  for (size_t i = 0; i < given.size(); ++i) {
    if (!given[i]) continue;
    std::vector<SymbolicDim> dims;
    for (py::handle dim : *given[i]) dims.push_back(to_dim(dim));
    shapes[i] = Shape<SymbolicDim>(std::move(dims));
    pointers[i] = &shapes[i];
  }
  std::vector<py::tuple> results;
  for (const auto& shape : create(type, attributes)->infer(pointers)) {
    py::tuple result(shape.rank());
    for (size_t i = 0; i < shape.rank(); ++i) result[i] = from_dim(shape[i]);
    results.push_back(result);
  }
  return results;
}

// A call keeps the pool that it runs on, while set_num_threads may bring another.
std::shared_ptr<ThreadPool>& pool() {
  static auto& pool = *new std::shared_ptr<ThreadPool>;  // never joined at exit
  if (pool && pool->is_usable()) return pool;
  const int threads =
      pool ? pool->threads() : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (pool) new std::shared_ptr<ThreadPool>(std::move(pool));  // its threads are the parent's
  pool = std::make_shared<ThreadPool>(threads);
  return pool;
}

constexpr int kMostThreads = 1024;
constexpr double kMostSeconds = 60;

class PoolContext final : public Context {
 public:
  explicit PoolContext(ThreadPool& pool) : pool_(pool) {}

  void parallel_for(int64_t count, int64_t grain, RangeFunction function) const override {
    const int64_t ranges = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, tasks());
    if (count <= 0) return;
    if (ranges == 1) return function(0, count);
    pool_.run(ranges, [&](int64_t begin, int64_t end) {
      function(count * begin / ranges, count * end / ranges);
    });
  }
  int64_t tasks() const override { return 4 * pool_.threads(); }

 private:
  ThreadPool& pool_;
};

// NumPy itself has no bfloat16: ml_dtypes adds it.
py::dtype dtype_named(const std::string& name) {
  if (name != "bfloat16") return py::dtype(name);
  return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
}

// An array with the memory that its view refers to.
struct HostArray {
  py::array array;
  std::vector<int64_t> shape, strides;

  explicit HostArray(py::array given) : array(std::move(given)) {
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
      shape.push_back(array.shape(axis));
      strides.push_back(array.strides(axis) / array.itemsize());
    }
  }
  Tensor view() const { return {const_cast<void*>(array.data()), shape, strides}; }
};

// A view can tell strides in whole, aligned elements of the machine's byte order only.
py::array addressable(const py::array& array) {
  const auto address = reinterpret_cast<uintptr_t>(array.data());
  const auto size = static_cast<uintptr_t>(array.itemsize());
  bool good = address % size == 0 && array.dtype().byteorder() != '>';
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    good = good && array.strides(axis) % array.itemsize() == 0;
  }
  return good ? array : py::array(array.attr("astype")(array.dtype().attr("newbyteorder")("=")));
}

std::vector<py::array> compute(const std::string& name,
                               const std::vector<std::optional<py::array>>& given,
                               const py::sequence& attributes) {
  const OpType& type = find(name);
  Dtypes dtypes;
  for (const auto& array : given) {
    dtypes.push_back(array ? std::optional(array->dtype().attr("name").cast<std::string>())
                           : std::nullopt);
  }
  const size_t signature = signature_of(type, dtypes);

  std::vector<HostArray> arrays;
  std::vector<Shape<int64_t>> shapes(given.size());
  std::vector<const Shape<int64_t>*> shape_pointers(given.size());
  std::vector<std::optional<Tensor>> views(given.size());
  arrays.reserve(given.size());
  for (size_t i = 0; i < given.size(); ++i) {
    if (!given[i]) continue;
    arrays.emplace_back(addressable(*given[i]));
    views[i] = arrays.back().view();
    shapes[i] = Shape<int64_t>(arrays.back().shape);
    shape_pointers[i] = &shapes[i];
  }
  const std::unique_ptr<Op> op = create(type, attributes);

  std::vector<HostArray> outputs;
  std::vector<Tensor> output_views;
  const Shapes<int64_t> results = op->infer(shape_pointers);
  outputs.reserve(results.size());
  for (size_t i = 0; i < results.size(); ++i) {
    outputs.emplace_back(py::array(
        dtype_named(custom_ops::name(type.signatures[signature].outputs[i])), results[i].dims()));
    output_views.push_back(outputs.back().view());
  }
  {
    const std::shared_ptr<ThreadPool> threads = pool();
    const py::gil_scoped_release release;
    op->compute(signature, PoolContext(*threads), views, output_views);
  }
  std::vector<py::array> computed;
  for (HostArray& output : outputs) computed.push_back(output.array);
  return computed;
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() =
      "The ops of the kernel library: specs, shape rules, and functions on NumPy arrays.";

  py::class_<InputSpec>(module, "Input")
      .def_readonly("name", &InputSpec::name)
      .def_property_readonly("optional", &InputSpec::optional)
      .def_property_readonly("neutral", [](const InputSpec& input) -> py::object {
        if (!input.neutral) return py::none();
        return py::make_tuple(input.neutral->value, input.neutral->rank);
      });
  py::class_<AttributeSpec>(module, "Attribute")
      .def_readonly("name", &AttributeSpec::name)
      .def_readonly("onnx_name", &AttributeSpec::onnx_name)
      .def_readonly("default", &AttributeSpec::initial);
  py::class_<OpType, std::unique_ptr<OpType, py::nodelete>>(module, "Spec")
      .def_readonly("name", &OpType::name)
      .def_readonly("onnx_name", &OpType::onnx_name)
      .def_readonly("inputs", &OpType::inputs)
      .def_readonly("outputs", &OpType::outputs)
      .def_readonly("attributes", &OpType::attributes)
      .def_property_readonly(
          "like_first_input",
          [](const OpType& type) { return type.layout == Layout::kLikeFirstInput; })
      .def_property_readonly("dtypes",
                             [](const OpType& type) {
                               std::vector<std::string> names;
                               for (const Signature& s : type.signatures)
                                 names.emplace_back(name(s.inputs[0]));
                               return names;
                             })
      .def_property_readonly("input_dtypes", [](const OpType& type) {
        std::vector<std::vector<std::string>> all;  // of each signature, as in dtypes
        for (const Signature& s : type.signatures) {
          all.emplace_back();
          for (DType dtype : s.inputs) all.back().emplace_back(name(dtype));
        }
        return all;
      });

  module.def(
      "specs",
      [] {
        std::vector<const OpType*> types = registry();
        return types;
      },
      py::return_value_policy::reference);
  module.def("output_dtypes", &output_dtypes, py::arg("op"), py::arg("dtypes"));
  module.def("infer", &infer, py::arg("op"), py::arg("shapes"), py::arg("attributes"));
  module.def("compute", &compute, py::arg("op"), py::arg("arrays"), py::arg("attributes"));
  module.def("get_num_threads", [] { return pool()->threads(); });
  module.def(
      "set_num_threads",
      [](int threads) {
        if (threads < 1 || threads > kMostThreads) {
          throw py::value_error(text("set_num_threads: threads must be at least 1 and at most ",
                                     kMostThreads, ", got ", threads));
        }
        pool() = std::make_shared<ThreadPool>(threads);
      },
      py::arg("threads"));
  module.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (Isa isa : supported_isas()) names.emplace_back(name(isa));
    return names;
  });
  module.def("instruction_set", [] { return name(isa()); });
  module.def(
      "measure_fma_peak",
      [](double seconds) {
        if (!(seconds > 0 && seconds <= kMostSeconds)) {
          throw py::value_error(text("measure_fma_peak: seconds must be above 0 and at most ",
                                     kMostSeconds, ", got ", seconds));
        }
        const py::gil_scoped_release release;
        return measure_fma_peak(seconds);
      },
      py::arg("seconds"));
}

}  // namespace custom_ops::python
