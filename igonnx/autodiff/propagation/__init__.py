"""Propagations: other backward rules over the same walk, in the place of the gradient's own.

A propagation without parameters has a name: "gradient" is the gradient itself, "guided_backprop" and "deconvnet" are
told of in `relu_rules`. One with parameters is a specification, a frozen `PropagationSpec`; `specification` makes one
of either. It gives a `Propagation` for each walk, whose rules the walk asks first; where its rule for an operator
returns None, or there is none, the ordinary rule serves. What a rule needs besides the node (its forward values are at
hand in the graph: `v.x`, `v.y`), such as what the values are for a reference input, belongs into the `Propagation`.
"""

from igonnx.autodiff.propagation.base import Propagation, PropagationSpec
from igonnx.autodiff.propagation.named import (
    GRADIENT,
    PROPAGATIONS,
    Named,
    require_propagation,
    specification,
)

__all__ = [
    "GRADIENT",
    "PROPAGATIONS",
    "Named",
    "Propagation",
    "PropagationSpec",
    "require_propagation",
    "specification",
]
