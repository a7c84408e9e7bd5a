"""Which nodes a release of ONNX Runtime has CPU kernels for."""
