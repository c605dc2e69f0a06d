"""NNI experiments on real images: which pruner keeps most, and a search under a latency."""
