"""The last step before the native engine: what only this machine's runtime understands, and runs faster.

A rule of `igonnx.autodiff` that may use the plugin's operators (`GraphBuilder.native`) can leave an operator of the
domain ai.igonnx that says what is wanted rather than how; `lower` settles the how.
"""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.graph.native_target import NativeTarget
from igonnx.native_lowering.blocked_layout import BlockedLayout
from igonnx.native_lowering.fusions import fuse
from igonnx.native_lowering.transpositions import fuse_transpositions

__all__ = ["lower"]


def lower(model: ir.Model, target: NativeTarget) -> None:
    """Rewrite the explanation graph `model`, in place, for `target`."""
    fuse(model)
    fuse_transpositions(model)
    passes.RemoveUnusedNodesPass()(model)
    if target.block > 1:
        BlockedLayout(model, target.block).run()
        passes.RemoveUnusedNodesPass()(model)  # and the weights in their former order
