"""ONNX files of one step or a whole run, and their check."""
