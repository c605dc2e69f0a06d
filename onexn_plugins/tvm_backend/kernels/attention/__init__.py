"""Products of two activations, softmax and layer norms, and transposes: what transformers' blocks are made of."""
