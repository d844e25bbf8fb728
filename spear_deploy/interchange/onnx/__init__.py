"""ONNX files of one step or of a whole run, and their check."""
