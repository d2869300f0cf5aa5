"""Recurrent layers, RNN, LSTM and GRU, as Scans over time.

The part of a gate that depends on the input alone is one product over all time steps; a Scan does the rest, one time
step after the other. Where sequences have lengths of their own, the state of one that is over stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims, dtype_of
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering

# One time step: (builder, the input's part of the gates [N, G H], state before) -> state after, the output first.
Step = Callable[[GraphBuilder, ir.Value, Sequence[ir.Value]], "list[ir.Value]"]
Activation = Callable[[GraphBuilder, ir.Value], ir.Value]


@dataclass(frozen=True)
class _Layer:
    """What the directions of one node share."""

    n: NodeView
    gates: int
    hidden: int
    states: int  # tensors of the state: output, and the cell of an LSTM
    x: ir.Value  # [time, batch, input]
    batch: int | str  # the length of the batch axis, or a name for it

    @property
    def op(self) -> GraphBuilder:
        """The builder."""
        return self.n.op

    def parameter(self, index: int, direction: int) -> ir.Value | None:
        """One direction's part of an input [directions, ...], or None where it is left out."""
        value = self.n.optional_input(index)
        if value is None:
            return None
        return self.op.Gather(value, self.op.ints(direction), axis=0)  # type: ignore[no-any-return]

    def initial(self, index: int, direction: int) -> ir.Value:
        """The state [batch, hidden] to begin with; zeros where none is given."""
        value, op = self.n.optional_input(index), self.op
        if value is None:
            batch = op.Gather(op.Shape(self.x), [1], axis=0)
            return op.zeros(op.join(batch, [self.hidden]), dtype_of(self.x))
        axis = 1 if self.n.attribute("layout", 0) else 0
        return op.Gather(value, op.ints(direction), axis=axis)  # type: ignore[no-any-return]


@lowering("RNN")
def rnn(n: NodeView) -> Lowered:
    """RNN: H' = f(x W + H R + b)."""
    return _recurrent(n, gates=1, states=1, step=_rnn_step)


@lowering("LSTM")
def lstm(n: NodeView) -> Lowered:
    """LSTM with gates i, o, f and candidate c: C' = f C + i c, H' = o h(C'); with optional peepholes from C."""
    return _recurrent(n, gates=4, states=2, step=_lstm_step)


@lowering("GRU")
def gru(n: NodeView) -> Lowered:
    """GRU with gates z, r and candidate h: H' = (1 - z) h + z H."""
    return _recurrent(n, gates=3, states=1, step=_gru_step)


def _recurrent(
    n: NodeView, *, gates: int, states: int, step: Callable[[_Layer, int], Step]
) -> Lowered:
    op = n.op
    hidden = n.attribute("hidden_size")
    if hidden is None:
        width = dims(n.input(2))[-1]
        if not isinstance(width, int):
            raise n.unsupported("an unknown hidden size")
        hidden = width
    batch_first = bool(n.attribute("layout", 0))
    x = op.Transpose(n.x, perm=[1, 0, 2]) if batch_first else n.x
    layer = _Layer(n, gates, hidden, states, x, _batch(n, 0 if batch_first else 1))
    direction = str(n.attribute("direction", "forward"))
    ways = {"forward": [0], "reverse": [1], "bidirectional": [0, 1]}.get(direction)
    if ways is None:
        raise n.unsupported(f"direction {direction!r}")
    runs = [_run(layer, i, way, step(layer, i)) for i, way in enumerate(ways)]
    # Y [time, directions, batch, hidden]; Y_h and Y_c [directions, batch, hidden]; batch first in layout 1.
    sequence = op.Concat(*(op.Unsqueeze(run[-1], [1]) for run in runs), axis=1)
    if batch_first:
        sequence = op.Transpose(sequence, perm=[2, 0, 1, 3])
    axis = 1 if batch_first else 0
    last = [
        op.Concat(*(op.Unsqueeze(run[state], [axis]) for run in runs), axis=axis)
        for state in range(states)
    ]
    return [sequence, *last]


def _batch(n: NodeView, axis: int) -> int | str:
    """The batch axis by its length or a name: so that nothing looks broadcast inside a time step."""
    known = None if n.x.shape is None else dims(n.x)[axis]
    return n.op.unique("batch") if known is None else known


def _run(layer: _Layer, direction: int, way: int, step: Step) -> list[ir.Value]:
    """One direction: the states after it [batch, hidden], and the outputs [time, batch, hidden]."""
    op, n = layer.op, layer.n
    weight = layer.parameter(1, direction)
    gates = op.MatMul(layer.x, op.Transpose(weight, perm=[1, 0]))
    bias = _input_bias(layer, direction)
    if bias is not None:
        gates = op.Add(gates, bias)
    initial = [layer.initial(index, direction) for index in (5, 6)[: layer.states]]
    lengths = n.optional_input(4)
    scanned = [gates]
    if lengths is not None:
        total = op.Squeeze(op.Gather(op.Shape(layer.x), [0], axis=0), [0])
        scanned.append(op.Range(op.ints(0), total, op.ints(1)))
    kind = ir.TensorType(dtype_of(layer.x))
    inner = op.nested("time_step")
    state = [
        ir.val(op.unique("state"), type=kind, shape=[layer.batch, layer.hidden]) for _ in initial
    ]
    gate = ir.val(op.unique("gates"), type=kind, shape=[layer.batch, layer.gates * layer.hidden])
    inner.graph.inputs.extend([*state, gate])
    after = step(inner, gate, state)
    output = after[0]
    if lengths is not None:
        time = ir.val(op.unique("time"), type=ir.TensorType(ir.DataType.INT64), shape=[])
        inner.graph.inputs.append(time)
        going = inner.Unsqueeze(inner.Less(time, inner.cast(lengths, ir.DataType.INT64)), [1])
        output = inner.Where(going, after[0], inner.scalar(0.0, after[0]))
        after = [inner.Where(going, new, old) for new, old in zip(after, state, strict=True)]
    for value in [*after, output]:
        inner.put_out(value, kind, ir.Shape([layer.batch, layer.hidden]))
    results: list[ir.Value] = op.Scan(
        *initial,
        *scanned,
        outputs=layer.states + 1,
        body=inner.graph,
        num_scan_inputs=len(scanned),
        scan_input_directions=[way] * len(scanned),
        scan_output_directions=[way],
    )
    return results


def _input_bias(layer: _Layer, direction: int) -> ir.Value | None:
    """The biases of all gates [gates hidden] that do not depend on the state."""
    op = layer.op
    bias = layer.parameter(3, direction)
    if bias is None:
        return None
    width = layer.gates * layer.hidden
    of_input, of_state = op.Slice(bias, [0], [width]), op.Slice(bias, [width], [2 * width])
    if _resets_late(layer):
        # The candidate's recurrent bias is inside the reset: the step adds it.
        kept = op.Slice(of_state, [0], [2 * layer.hidden])
        of_state = op.Concat(kept, op.zeros(op.ints([layer.hidden]), dtype_of(layer.x)), axis=0)
    return op.Add(of_input, of_state)  # type: ignore[no-any-return]


def _resets_late(layer: _Layer) -> bool:
    return layer.n.node.op_type == "GRU" and bool(layer.n.attribute("linear_before_reset", 0))


def _recurrent_weights(layer: _Layer, direction: int) -> ir.Value:
    """R [hidden, gates hidden] of one direction."""
    return layer.op.Transpose(layer.parameter(2, direction), perm=[1, 0])  # type: ignore[no-any-return]


def _rnn_step(layer: _Layer, direction: int) -> Step:
    weights = _recurrent_weights(layer, direction)
    (f,) = _activations(layer, direction, ["Tanh"])

    def step(op: GraphBuilder, gates: ir.Value, state: Sequence[ir.Value]) -> list[ir.Value]:
        total = op.Add(gates, op.MatMul(state[0], weights))
        return [f(op, _clipped(layer, op, total))]

    return step


def _lstm_step(layer: _Layer, direction: int) -> Step:
    weights = _recurrent_weights(layer, direction)
    f, g, h = _activations(layer, direction, ["Sigmoid", "Tanh", "Tanh"])
    peepholes = layer.parameter(7, direction)
    # In the order of P: input, output, forget.
    peep = None if peepholes is None else layer.op.Split(peepholes, *_split(layer, 3), outputs=3)
    coupled = bool(layer.n.attribute("input_forget", 0))

    def step(op: GraphBuilder, gates: ir.Value, state: Sequence[ir.Value]) -> list[ir.Value]:
        hidden, cell = state
        total = op.Add(gates, op.MatMul(hidden, weights))
        i, o, forget, c = op.Split(total, *_split(layer, 4), axis=1, outputs=4)
        if peep is not None:
            i = op.Add(i, op.Mul(peep[0], cell))
            forget = op.Add(forget, op.Mul(peep[2], cell))
        i = f(op, _clipped(layer, op, i))
        forget = op.Sub(op.scalar(1.0, i), i) if coupled else f(op, _clipped(layer, op, forget))
        c = g(op, _clipped(layer, op, c))
        after = op.Add(op.Mul(forget, cell), op.Mul(i, c))
        if peep is not None:
            o = op.Add(o, op.Mul(peep[1], after))
        o = f(op, _clipped(layer, op, o))
        return [op.Mul(o, h(op, after)), after]

    return step


def _gru_step(layer: _Layer, direction: int) -> Step:
    op, hidden = layer.op, layer.hidden
    weights = _recurrent_weights(layer, direction)
    of_gates, of_candidate = op.Split(weights, op.ints([2 * hidden, hidden]), axis=1, outputs=2)
    f, g = _activations(layer, direction, ["Sigmoid", "Tanh"])
    late = _resets_late(layer)
    bias = layer.parameter(3, direction) if late else None
    recurrent_bias = None if bias is None else op.Slice(bias, [5 * hidden], [6 * hidden])

    def step(op: GraphBuilder, gates: ir.Value, state: Sequence[ir.Value]) -> list[ir.Value]:
        before = state[0]
        zr, candidate = op.Split(gates, op.ints([2 * hidden, hidden]), axis=1, outputs=2)
        zr = f(op, _clipped(layer, op, op.Add(zr, op.MatMul(before, of_gates))))
        z, r = op.Split(zr, *_split(layer, 2), axis=1, outputs=2)
        if late:
            recurrent = op.MatMul(before, of_candidate)
            if recurrent_bias is not None:
                recurrent = op.Add(recurrent, recurrent_bias)
            recurrent = op.Mul(r, recurrent)
        else:
            recurrent = op.MatMul(op.Mul(r, before), of_candidate)
        candidate = g(op, _clipped(layer, op, op.Add(candidate, recurrent)))
        return [op.Add(op.Mul(op.Sub(op.scalar(1.0, z), z), candidate), op.Mul(z, before))]

    return step


def _split(layer: _Layer, parts: int) -> list[ir.Value]:
    return [layer.op.ints([layer.hidden] * parts)]


def _clipped(layer: _Layer, op: GraphBuilder, value: ir.Value) -> ir.Value:
    """`value` within [-clip, clip], where the node asks for that before each activation."""
    clip = layer.n.attribute("clip")
    if not clip:
        return value
    return op.Clip(value, op.scalar(-clip, value), op.scalar(clip, value))  # type: ignore[no-any-return]


# -- activations -----------------------------------------------------------------------------

# Default alpha and beta, where a function has them.
_DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0),
    "thresholdedrelu": (1.0, None),
}
_PLAIN = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "tanh": "Tanh",
}


def _activations(layer: _Layer, direction: int, defaults: Sequence[str]) -> list[Activation]:
    """The activation functions of one direction, in order, with their parameters."""
    n = layer.n
    names = [str(name).lower() for name in n.attribute("activations") or []]
    names = names or [name.lower() for name in defaults] * 2
    # Parameters are dealt out in order to the functions that take any, over both directions.
    alphas, betas = (
        iter(n.attribute("activation_alpha") or []),
        iter(n.attribute("activation_beta") or []),
    )
    functions = [_activation(n, name, alphas, betas) for name in names]
    first = direction * len(defaults)
    return functions[first : first + len(defaults)]


def _activation(
    n: NodeView, name: str, alphas: Iterator[float], betas: Iterator[float]
) -> Activation:
    if name in _PLAIN:
        operator = _PLAIN[name]
        return lambda op, x: op.emit(operator, x)
    if name not in _DEFAULTS:
        raise n.unsupported(f"the activation {name!r}")
    default_alpha, default_beta = _DEFAULTS[name]
    alpha = next(alphas, default_alpha)
    beta = None if default_beta is None else next(betas, default_beta)
    if name == "affine":
        return lambda op, x: op.Add(op.Mul(x, alpha), beta)
    if name == "scaledtanh":
        return lambda op, x: op.Mul(op.Tanh(op.Mul(x, beta)), alpha)
    if name == "hardsigmoid":
        return lambda op, x: op.HardSigmoid(x, alpha=alpha, beta=beta)
    operator = {"elu": "Elu", "leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu"}[name]
    return lambda op, x: op.emit(operator, x, alpha=alpha)
