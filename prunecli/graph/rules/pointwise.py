"""Rules of operators that keep channels apart: pointwise, normalisation, pooling, reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.operators import (
    AVERAGE_POOLS,
    CHANNEL_NORMS,
    GROUP_NORMS,
    IDENTITIES,
    LAYER_NORMS,
    MAX_POOLS,
    OTHER_POOLS,
    RESIZERS,
    STATISTICS,
    reduced_dims,
    shape_of,
)
from prunecli.graph.rules.call import Annotation, Call, no_axes, rule
from prunecli.graph.rules.compute import broadcast

if TYPE_CHECKING:
    from torch import fx

    from prunecli.graph.coupling.ids import Axes


@rule(
    *IDENTITIES, "alpha_dropout", "bernoulli", "complex", "copy", "dropout",
    "feature_alpha_dropout", "feature_dropout", "fill", "full_like", "hardswish", "imag",
    "log_sigmoid", "ones_like", "polar", "rand_like", "randn_like", "real", "relu6",
    "resolve_conj", "resolve_neg", "rrelu", "rsub", "square", "type_as", "zero", "zeros_like",
    "_assert_tensor_metadata", "_conj",
)  # fmt: skip
def pointwise(call: Call) -> Axes:
    """Ids pass; operands of the same size are tied, a broadcast size of 1 is not."""
    operands = [(call.axes_of(node), shape_of(node, call.batch)) for node in call.tensors()]
    rank = max(len(axes) for axes, _ in operands)
    return tuple(
        broadcast(call, [(axes, shape, dim - rank) for axes, shape in operands])
        for dim in range(rank)
    )


@rule("prelu")
def prelu(call: Call) -> Axes:
    """Ids pass; the slopes own them."""
    source, weight = call.axes("self"), call.axes("weight")
    if call.shape("weight")[0] > 1:
        call.ids.tie(source[1], weight[0])
    return source


@rule(*CHANNEL_NORMS)
def channel_norm(call: Call) -> Axes:
    """Ids pass; statistics and affine own them."""
    source = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.arguments[name] is not None:
            call.ids.tie(source[1], call.axes(name)[0])
    return source


@rule(*LAYER_NORMS)
def layer_norm(call: Call) -> Axes:
    """Ids pass, but the statistics run over what is left."""
    source = call.axes("input")
    normalised = source[-len(call.arguments["normalized_shape"]) :]
    for name in ("weight", "bias"):
        if call.arguments.get(name) is not None:
            for axis, own in zip(normalised, call.axes(name), strict=True):
                call.ids.tie(axis, own)
    for axis in normalised:
        call.ids.mark_inexact(axis)
    return source


@rule(*GROUP_NORMS)
def group_norm(call: Call) -> Axes:
    """Ids pass; every group keeps the same count."""
    source, groups = call.axes("input"), call.arguments["num_groups"]
    channels = call.shape("input")[1]
    for name in ("weight", "bias"):
        if call.arguments[name] is not None:
            call.ids.tie(source[1], call.axes(name)[0])
    _, inside = call.ids.split(source[1], (groups, channels // groups))
    call.ids.mark_inexact(inside)
    return source


@rule(*AVERAGE_POOLS, *MAX_POOLS, *OTHER_POOLS, *RESIZERS)
def spatial(call: Call) -> Annotation:
    """Ids pass; positions change."""
    source = call.axes(next(iter(call.arguments)))
    positions = 3 if "3d" in call.operator else 1 if "1d" in call.operator else 2
    for axis in source[-positions:]:
        call.ids.freeze(axis, f"{call.operator} runs over these channels")
    for other in call.tensors()[1:]:
        _freeze_positions(call, other, source)
    return _each_output(call, (*source[:-positions], *(None,) * positions))


def _freeze_positions(call: Call, other: fx.Node, source: Axes) -> None:
    """Freeze the dimensions of what says where to read: a grid, indices, boxes."""
    axes = call.axes_of(other)
    for dim, axis in enumerate(axes):
        if len(axes) == len(source) and axis is not None and dim == len(source) - 3:
            call.ids.tie(axis, source[dim])
        else:
            call.ids.freeze(axis, "says where to read", report=False)


def _each_output(call: Call, axes: Axes) -> Annotation:
    """Return these axes for the output, or for each of several (values and their indices)."""
    value = call.node.meta["val"]
    return [axes] * len(value) if isinstance(value, list | tuple) else axes


@rule(*STATISTICS)
def statistic(call: Call) -> Annotation:
    """Ids of the reduced dimensions end; the statistic runs over what is left."""
    source = call.axes("self")
    dims = reduced_dims(call.arguments, len(source))
    for dim in dims:
        call.ids.mark_inexact(source[dim])
    return _reduced(call, dims)


@rule(
    "sum", "amax", "amin", "all", "any", "aminmax", "argmax", "argmin", "count_nonzero",
    "kthvalue", "logsumexp", "median", "mode", "nansum", "prod",
)  # fmt: skip
def reduction(call: Call) -> Annotation:
    """Ids of the reduced dimensions end, and what they stand for stays."""
    source = call.axes("self")
    dims = reduced_dims(call.arguments, len(source))
    for dim in dims:
        call.ids.freeze(source[dim], f"{call.operator} runs over these channels")
    return _reduced(call, dims)


def _reduced(call: Call, dims: set[int]) -> Annotation:
    source = call.axes("self")
    if call.arguments.get("keepdim"):
        return _each_output(
            call, tuple(None if dim in dims else axis for dim, axis in enumerate(source))
        )
    return _each_output(call, tuple(axis for dim, axis in enumerate(source) if dim not in dims))


@rule("max", "min")
def extremum(call: Call) -> Annotation:
    """Of two tensors: as any pointwise operator; of one: ids of the reduced dimensions end."""
    return pointwise(call) if "other" in call.arguments else reduction(call)


@rule(
    "argsort", "cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp", "sort", "topk",
)  # fmt: skip
def scan(call: Call) -> Annotation:
    """Ids pass, but on the dimension whose order counts they stay."""
    source = call.axes("self")
    dim = call.arguments.get("dim")
    at = (-1 if dim is None else int(dim)) % max(len(source), 1)
    if source:
        call.ids.freeze(source[at], f"{call.operator} runs over these channels")
    return _each_output(call, (*source[:at], None, *source[at + 1 :]))


@rule("tril", "triu")
def triangle(call: Call) -> Axes:
    """Ids pass, but on the last two dimensions they stay."""
    source = call.axes("self")
    for axis in source[-2:]:
        call.ids.freeze(axis, f"{call.operator} treats every position of its own kind")
    return source


_TRANSFORMS = [f"fft_{kind}fft{n}" for n in ("", "2", "n") for kind in ("", "i", "r", "ir")]


@rule(*_TRANSFORMS, "fft_hfft", "fft_ihfft", "fft_fftshift", "fft_ifftshift")
def transform(call: Call) -> Axes:
    """Ids pass, but the dimensions that are transformed stay."""
    source = call.axes("self")
    dims = reduced_dims(call.arguments, len(source))
    for dim in dims:
        call.ids.freeze(source[dim], "is transformed into frequencies")
    return tuple(None if dim in dims else axis for dim, axis in enumerate(source))


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell")
def recurrent(call: Call) -> Annotation:
    """Freeze a recurrent layer: its gates share one matrix."""
    for node in call.tensors():
        for axis in call.axes_of(node):
            call.ids.freeze(axis, "a recurrent layer stays whole")
    return no_axes(call.node)


@rule("glu")
def glu(call: Call) -> Axes:
    """Tie the two halves, values and gates."""
    source, at = call.axes("self"), call.dim("dim")
    axis = source[at]
    half = None if axis is None else axis.size // 2
    tied = None if axis is None else call.ids.tie(axis[:half], axis[half:])
    return (*source[:at], tied, *source[at + 1 :])


@rule("softmax", "log_softmax", "_softmax", "softmin")
def softmax(call: Call) -> Axes:
    """Ids pass; channels that compete are frozen."""
    source = call.axes("self")
    call.ids.freeze(source[call.dim("dim")], f"{call.operator} lets these channels compete")
    return source
