"""A convolution and the depthwise one after it (and the 1×1 one after that) as one kernel."""
