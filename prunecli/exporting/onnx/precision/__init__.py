"""ONNX files in other precisions than float, by ONNX Runtime's own tools."""
