"""Networks of other tasks than classification, and classification's with attention: pruned through both adapters,
compiled, right, and how fast beside onnxruntime."""
