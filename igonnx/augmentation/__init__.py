"""One ONNX file that predicts and explains."""
