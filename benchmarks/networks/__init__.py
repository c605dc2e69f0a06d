"""Networks of torchvision and timm, pruned and compiled, beside torch and onnxruntime: are they right, and is each
layer sparse where it should be."""
