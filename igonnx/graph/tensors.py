"""Tensors that several graphs share."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["own_tensor"]


def own_tensor(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Another tensor object on the same data: naming a value renames its tensor, which clones and protobufs share."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name or "",
            base_dir=tensor.base_dir,
        )
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=shape, name=tensor.name)
