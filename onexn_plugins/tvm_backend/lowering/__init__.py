"""The planned network as a Relax module with its memory at fixed places: our kernels, and what TVM lowers."""
