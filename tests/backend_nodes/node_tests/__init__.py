"""igonnx against the ONNX project's own tests of single operators (`onnx.backend.test`, kind "node").

`suite` loads them, `runtime` and `reference` run a model, `widening` writes it in float64, `differences` finds what
every output does along random lines of the inputs, `verdict` puts igonnx's gradient beside that, `lists` names the
tests that are left out or refused.
"""
