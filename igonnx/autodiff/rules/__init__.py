"""Backward rules of the ONNX operators, one file per family. Importing a file registers its rules.

Each rule names the operator whose definition it differentiates; definitions are those of
https://onnx.ai/onnx/operators. Where a derivative does not exist at a point, the choice is PyTorch's.
"""
