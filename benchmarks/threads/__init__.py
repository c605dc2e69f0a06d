"""How much faster two threads are than one, ours and ONNX Runtime's."""
