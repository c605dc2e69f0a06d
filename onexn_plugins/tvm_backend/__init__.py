"""Compiles 1×N-pruned networks with TVM: sparse kernels of our own, for this machine and for ARM."""
