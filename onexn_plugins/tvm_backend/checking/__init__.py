"""What is compiled is compared with onnxruntime and ONNX's reference: operators alone, then the whole network."""
