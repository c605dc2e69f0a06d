"""Networks that are made of transposed convolutions, dense and pruned, beside ONNX Runtime."""
