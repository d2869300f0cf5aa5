"""igonnx against the ONNX project's own tests of single operators (`onnx.backend.test`, kind "node").

`suite` loads them, `runtime` runs a model in onnxruntime, `widening` writes a model in float64, `differences` finds
what every output does along random lines of the inputs, `verdict` puts igonnx's gradient beside that.
"""
