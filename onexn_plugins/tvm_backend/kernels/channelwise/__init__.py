"""Families whose channels need nothing of each other: depthwise convolutions and pooling."""
