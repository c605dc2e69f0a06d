"""The ONNX project's own operator tests, from the pip package onnx: how many are right, and none wrong."""
