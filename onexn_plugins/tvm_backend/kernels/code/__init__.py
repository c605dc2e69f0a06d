"""How a kernel is written down: vectors, buffers, functions and activations as TVM's code."""
