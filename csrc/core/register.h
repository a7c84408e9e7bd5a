// Makes an OpType of an op's struct. See csrc/ops/mul_add/mul_add.cpp for the smallest one.
//
//   struct MyOp {
//     static constexpr const char* name = "my_op";
//     static constexpr const char* onnx_name = "MyOp";       // without it: an op of torch only
//     static constexpr InputSpec inputs[] = {{"x"}, {"bias", Neutral{0, 1}}};
//     static constexpr const char* outputs[] = {"y"};
//     static constexpr Layout layout = Layout::kContiguous;  // as here where left out
//
//     double alpha = 2.0;                                    // also int64_t, bool, std::string,
//     void attributes(auto&& visit) { visit("alpha", alpha); }  // std::vector<int64_t>
//
//     template <typename Dim>  // checks, and the shape of the output (or Shapes<Dim> of several)
//     Shape<Dim> infer(const Shape<Dim>& x, const Shape<Dim>* bias) const;
//
//     template <typename T>
//     void compute(const Context&, In<T> x, OptionalIn<T> bias, Out<T> y) const;
//
//     void set_constant_inputs(std::span<const bool>);  // if the op keeps what it makes of them
//   };
//   CUSTOM_OPS_REGISTER(MyOp, float, double, Half, BFloat16)
#pragma once

#include <array>
#include <iterator>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "core/op.h"

namespace custom_ops::internal {

// One parameter of a compute function: what it is, and how an erased tensor becomes it.
template <typename Parameter>
struct ParameterTraits;

template <typename T>
struct ParameterTraits<View<T>> {
  static constexpr bool is_input = std::is_const_v<T>;
  static constexpr bool is_optional = false;
  static constexpr DType dtype = dtype_of<std::remove_const_t<T>>;
  static View<T> from(const Tensor& tensor) {
    return {static_cast<T*>(tensor.data), tensor.shape, tensor.strides};
  }
  static View<T> from(const std::optional<Tensor>& tensor) { return from(*tensor); }
};

template <typename T>
struct ParameterTraits<std::optional<View<const T>>> : ParameterTraits<View<const T>> {
  static constexpr bool is_optional = true;
  static OptionalIn<T> from(const std::optional<Tensor>& tensor) {
    if (!tensor) return std::nullopt;
    return ParameterTraits<View<const T>>::from(*tensor);
  }
};

template <typename Method>
struct ComputeTraits;

template <typename OpStruct, typename... Parameters>
struct ComputeTraits<void (OpStruct::*)(const Context&, Parameters...) const> {
  using Tuple = std::tuple<ParameterTraits<Parameters>...>;
  static constexpr size_t inputs = (size_t{ParameterTraits<Parameters>::is_input} + ... + 0);
  static constexpr size_t outputs = sizeof...(Parameters) - inputs;
  static constexpr std::array<bool, sizeof...(Parameters)> is_input{
      ParameterTraits<Parameters>::is_input...};
  static constexpr std::array<bool, sizeof...(Parameters)> is_optional{
      ParameterTraits<Parameters>::is_optional...};

  static constexpr bool like_first_input = [] {
    constexpr std::array all{ParameterTraits<Parameters>::dtype...};
    return outputs == 1 && inputs > 0 && all.front() == all.back();
  }();

  static Signature signature() {
    const std::vector<DType> all{ParameterTraits<Parameters>::dtype...};
    return {{all.begin(), all.begin() + inputs}, {all.begin() + inputs, all.end()}};
  }
};

template <typename OpStruct, typename T>
using Traits = ComputeTraits<decltype(&OpStruct::template compute<T>)>;

// The struct's statements about itself agree with its compute function.
template <typename OpStruct, typename T>
constexpr bool is_well_formed() {
  using Compute = Traits<OpStruct, T>;
  if constexpr (requires { OpStruct::layout; }) {
    static_assert(OpStruct::layout == Layout::kContiguous || Compute::like_first_input,
                  "an op with kLikeFirstInput has one output, of the first input's type");
  }
  static_assert(Compute::inputs == std::size(OpStruct::inputs),
                "compute() must have an In or OptionalIn for each entry of inputs[]");
  static_assert(Compute::outputs == std::size(OpStruct::outputs),
                "compute() must have an Out for each entry of outputs[]");
  for (size_t i = 0; i < Compute::inputs; ++i) {
    if (!Compute::is_input[i]) return false;  // inputs come before outputs
    if (Compute::is_optional[i] != OpStruct::inputs[i].optional()) return false;
  }
  return true;
}

template <typename OpStruct, typename... Ts>
class ErasedOp final : public Op {
 public:
  explicit ErasedOp(OpStruct op) : op_(std::move(op)) {}

  Shapes<int64_t> infer(ShapePointers<int64_t> inputs) const override { return checked(inputs); }
  Shapes<SymbolicDim> infer(ShapePointers<SymbolicDim> inputs) const override {
    return checked(inputs);
  }

  void set_constant_inputs(std::span<const bool> constant) override {
    if constexpr (requires { op_.set_constant_inputs(constant); })
      op_.set_constant_inputs(constant);
  }

  void compute(size_t signature, const Context& context,
               std::span<const std::optional<Tensor>> inputs,
               std::span<const Tensor> outputs) const override {
    if (signature >= sizeof...(Ts)) throw std::logic_error("custom_ops: no such signature");
    size_t index = 0;
    ((index++ == signature ? run<Ts>(context, inputs, outputs) : void()), ...);
  }

 private:
  static constexpr size_t kInputs = std::size(OpStruct::inputs);
  static constexpr size_t kOutputs = std::size(OpStruct::outputs);

  template <typename Dim>
  Shapes<Dim> checked(ShapePointers<Dim> inputs) const {
    try {
      if (inputs.size() != kInputs) fail("inputs", text("must be ", kInputs), inputs.size());
      for (size_t i = 0; i < kInputs; ++i) {
        const bool missing = inputs[i] == nullptr && !OpStruct::inputs[i].optional();
        if (missing) fail(OpStruct::inputs[i].name, "must be given", "None");
      }
      return infer_all(inputs, std::make_index_sequence<kInputs>());
    } catch (const RuleError& error) {
      throw RuleError(text(OpStruct::name, ": ", error.what()));
    }
  }

  template <size_t I, typename Dim>
  static decltype(auto) shape_argument(ShapePointers<Dim> inputs) {
    if constexpr (OpStruct::inputs[I].optional()) {
      return inputs[I];
    } else {
      return *inputs[I];
    }
  }

  template <typename Dim, size_t... I>
  Shapes<Dim> infer_all(ShapePointers<Dim> inputs, std::index_sequence<I...>) const {
    if constexpr (kOutputs == 1) {
      return {op_.template infer<Dim>(shape_argument<I>(inputs)...)};
    } else {
      return op_.template infer<Dim>(shape_argument<I>(inputs)...);
    }
  }

  template <typename T>
  void run(const Context& context, std::span<const std::optional<Tensor>> inputs,
           std::span<const Tensor> outputs) const {
    run_with<T>(context, inputs, outputs, std::make_index_sequence<kInputs>(),
                std::make_index_sequence<kOutputs>());
  }

  template <typename T, size_t... I, size_t... O>
  void run_with(const Context& context, std::span<const std::optional<Tensor>> inputs,
                std::span<const Tensor> outputs, std::index_sequence<I...>,
                std::index_sequence<O...>) const {
    using Tuple = typename Traits<OpStruct, T>::Tuple;
    op_.template compute<T>(context, std::tuple_element_t<I, Tuple>::from(inputs[I])...,
                            std::tuple_element_t<kInputs + O, Tuple>::from(outputs[O])...);
  }

  OpStruct op_;
};

// Reads the attributes of a struct with their initial values.
struct AttributeReader {
  std::vector<AttributeSpec>& specs;
  template <typename T>
  void operator()(const char* name, T& field, const char* onnx_name = nullptr) const {
    specs.push_back({name, onnx_name == nullptr ? name : onnx_name, AttributeValue(field)});
  }
};

// Sets the attributes of a struct, in order.
struct AttributeWriter {
  std::span<const AttributeValue> values;
  size_t& next;
  template <typename T>
  void operator()(const char*, T& field, const char* = nullptr) const {
    field = std::get<T>(values[next++]);
  }
};

template <typename OpStruct, typename... Ts>
class ErasedOpType final : public OpType {
 public:
  ErasedOpType() {
    static_assert((is_well_formed<OpStruct, Ts>() && ...),
                  "compute() must take the inputs of inputs[] in order, OptionalIn for those with "
                  "a Neutral, then the outputs");
    name = OpStruct::name;
    if constexpr (requires { OpStruct::onnx_name; }) onnx_name = OpStruct::onnx_name;
    if constexpr (requires { OpStruct::layout; }) layout = OpStruct::layout;
    inputs.assign(std::begin(OpStruct::inputs), std::end(OpStruct::inputs));
    outputs.assign(std::begin(OpStruct::outputs), std::end(OpStruct::outputs));
    if constexpr (requires(OpStruct op) { op.attributes(AttributeReader{attributes}); }) {
      OpStruct().attributes(AttributeReader{attributes});
    }
    (signatures.push_back(Traits<OpStruct, Ts>::signature()), ...);
  }

  std::unique_ptr<Op> create(std::span<const AttributeValue> values) const override {
    OpStruct op;
    size_t next = 0;
    if constexpr (requires { op.attributes(AttributeWriter{values, next}); }) {
      op.attributes(AttributeWriter{values, next});
    }
    return std::make_unique<ErasedOp<OpStruct, Ts...>>(std::move(op));
  }
};

template <typename OpStruct, typename... Ts>
struct Registration {
  Registration() { add_to_registry(std::make_unique<ErasedOpType<OpStruct, Ts...>>()); }
};

}  // namespace custom_ops::internal

#define CUSTOM_OPS_REGISTER(OpStruct, ...) \
  static const ::custom_ops::internal::Registration<OpStruct, __VA_ARGS__> register_##OpStruct;
