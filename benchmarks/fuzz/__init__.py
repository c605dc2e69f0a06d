"""Damaged ONNX files and artefacts: each is refused with a OneXNError, or what it computes is right."""
