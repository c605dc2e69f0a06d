"""The whole method in a few minutes: python -m benchmarks.demo."""
