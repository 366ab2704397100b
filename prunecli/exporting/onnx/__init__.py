"""ONNX files: written, checked, described, scored."""
