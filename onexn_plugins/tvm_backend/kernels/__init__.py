"""1×N block-sparse CPU kernels as TVM PrimFuncs; `choose.py` is the map.

Weights and biases are float32 numpy arrays, in the layout of torch. A weight without zero blocks becomes a dense
kernel. Every family raises `Unsupported`, before it builds anything, for what it has no kernel for.
"""
