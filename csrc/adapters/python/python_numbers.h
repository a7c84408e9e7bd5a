// Sizes as Python's numbers, torch's symbolic sizes among them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "core/symbolic.h"

namespace custom_ops::python {

namespace py = pybind11;

// Computes through the numbers' own arithmetic, which leaves torch's guards behind.
class PythonNumbers final : public SymbolicHost {
 public:
  void retain(void* handle) override { Py_INCREF(object(handle)); }
  void release(void* handle) override { Py_DECREF(object(handle)); }
  void* from_int(int64_t value) override { return owned(PyLong_FromLongLong(value)); }
  void* compute(Arithmetic op, void* left, void* right) override {
    switch (op) {
      case Arithmetic::kAdd:
        return owned(PyNumber_Add(object(left), object(right)));
      case Arithmetic::kSubtract:
        return owned(PyNumber_Subtract(object(left), object(right)));
      case Arithmetic::kMultiply:
        return owned(PyNumber_Multiply(object(left), object(right)));
      case Arithmetic::kFloorDivide:
        return owned(PyNumber_FloorDivide(object(left), object(right)));
    }
    return nullptr;
  }
  bool compare(Comparison op, void* left, void* right) override {
    constexpr int kOperators[] = {Py_EQ, Py_NE, Py_LT, Py_LE, Py_GT, Py_GE};
    const int result =
        PyObject_RichCompareBool(object(left), object(right), kOperators[static_cast<int>(op)]);
    if (result < 0) throw py::error_already_set();
    return result == 1;
  }
  std::string text(void* handle) override { return py::str(py::handle(object(handle))); }

 private:
  static PyObject* object(void* handle) { return static_cast<PyObject*>(handle); }
  static void* owned(PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return result;
  }
};

inline SymbolicDim to_dim(py::handle value) {
  static PythonNumbers numbers;
  if (PyLong_CheckExact(value.ptr())) {
    int overflow = 0;
    const long long plain = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
    if (overflow == 0) return SymbolicDim(plain);
  }
  return SymbolicDim(&numbers, value.inc_ref().ptr());
}

inline py::object from_dim(const SymbolicDim& dim) {
  if (dim.is_plain()) return py::int_(dim.value());
  return py::reinterpret_borrow<py::object>(static_cast<PyObject*>(dim.handle()));
}

}  // namespace custom_ops::python
