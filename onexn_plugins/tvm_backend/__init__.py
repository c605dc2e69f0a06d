"""The TVM backend: 1×N block-sparse networks from ONNX to a compiled module."""
