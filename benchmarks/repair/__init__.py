"""What repair without labels brings, step by step, on a network with ImageNet weights."""
