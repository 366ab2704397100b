"""Rules of operators that keep channels apart: pointwise, normalisation, pooling, reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.operators import (
    AVERAGE_POOLS,
    CHANNEL_NORMS,
    FAKE_QUANTIZERS,
    GROUP_NORMS,
    IDENTITIES,
    LAYER_NORMS,
    MAX_POOLS,
    OTHER_POOLS,
    RESIZERS,
    STATISTICS,
    UNTAGGED_POINTWISE,
    reduced_dims,
    shape_of,
)
from prunecli.graph.rules.call import Annotation, Call, no_axes, rule
from prunecli.graph.rules.compute import broadcast

if TYPE_CHECKING:
    from torch import fx

    from prunecli.graph.coupling.ids import Axes


@rule(
    *IDENTITIES, *UNTAGGED_POINTWISE, "alpha_dropout", "bernoulli", "complex", "copy", "dropout",
    "empty_like", "feature_alpha_dropout", "feature_dropout", "fill", "full_like", "hardswish",
    "imag", "log_sigmoid", "ones_like", "polar", "rand_like", "randint_like", "randn_like", "real",
    "relu6", "resolve_conj", "resolve_neg", "rrelu", "rsub", "square", "zero", "zeros_like",
    "_assert_tensor_metadata", "_conj",
)  # fmt: skip
def pointwise(call: Call) -> Annotation:
    """Ids pass; operands of the same size are tied, a broadcast size of 1 is not."""
    operands = [(call.axes_of(node), shape_of(node, call.batch)) for node in call.tensors()]
    rank = max(len(axes) for axes, _ in operands)
    axes = tuple(
        broadcast(call, [(axes, shape, dim - rank) for axes, shape in operands])
        for dim in range(rank)
    )
    return _each_output(call, axes)


@rule("prelu")
def prelu(call: Call) -> Axes:
    """Ids pass; the slopes own them."""
    source, weight = call.axes("self"), call.axes("weight")
    if max(call.shape("weight"), default=1) > 1:
        call.ids.tie(source[1], weight[0])
    return source


@rule(*FAKE_QUANTIZERS)
def fake_quantizer(call: Call) -> Axes:
    """Ids pass; scales, zero points and ranges of single channels own them."""
    source, known = call.axes("self"), call.arguments
    if known.get("per_row_fake_quant", True):
        channels = source[known["ch_axis"] if "ch_axis" in known else known["axis"]]
        for name in ("scale", "zero_point", "running_min", "running_max"):
            if name in known:
                call.ids.tie(channels, call.axes(name)[0])
    return source


@rule(*CHANNEL_NORMS)
def channel_norm(call: Call) -> Axes:
    """Ids pass; statistics and affine own them. What statistics of the input run over stays."""
    source = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.arguments[name] is not None:
            call.ids.tie(source[1], call.axes(name)[0])
    if call.arguments.get("use_input_stats"):
        _freeze(call, source[2:])
    if call.arguments.get("training"):
        _freeze(call, (*source[:1], *source[2:]))
    return source


def _freeze(call: Call, axes: Axes) -> None:
    for axis in axes:
        call.ids.freeze(axis, f"{call.operator} runs over these channels")


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
    _freeze(call, source[2:])
    return source


@rule(*AVERAGE_POOLS, *MAX_POOLS, *OTHER_POOLS, *RESIZERS)
def spatial(call: Call) -> Annotation:
    """Ids pass; positions change."""
    source = call.axes(next(iter(call.arguments)))
    positions = 3 if "3d" in call.operator else 1 if "1d" in call.operator else 2
    _freeze(call, source[-positions:])
    kept = source[:-positions]
    for other in call.tensors()[1:]:
        kept = _beside(call, kept, other, last=positions if "unpool" in call.operator else 1)
    return _each_output(call, (*kept, *(None,) * positions))


def _beside(call: Call, kept: Axes, other: fx.Node, *, last: int) -> Axes:
    """Tie what is left of an image to what says where to read in it: in its `last` dimensions."""
    axes = call.axes_of(other)
    ahead, places = axes[: len(axes) - last], axes[len(axes) - last :]
    # What a fractional pooling draws has a batch of one where the image has none.
    extra, ahead = ahead[: len(ahead) - len(kept)], ahead[len(ahead) - len(kept) :]
    for axis in (*extra, *places):
        call.ids.freeze(axis, "says where to read", report=False)
    return tuple(call.ids.tie(own, theirs) for own, theirs in zip(kept, ahead, strict=True))


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
    _freeze(call, tuple(source[dim] for dim in dims))
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
    _freeze(call, source[at : at + 1])
    for other in call.tensors()[1:]:  # what a difference is continued by at both ends
        axes = call.axes_of(other)
        _freeze(call, axes[at : at + 1])
        source = tuple(
            axis if dim == at else call.ids.tie(axis, axes[dim]) for dim, axis in enumerate(source)
        )
    return _each_output(
        call, (*source[:at], *(None for _ in source[at : at + 1]), *source[at + 1 :])
    )


@rule("tril", "triu")
def triangle(call: Call) -> Axes:
    """Ids pass, but on the last two dimensions they stay."""
    source = call.axes("self")
    for axis in source[-2:]:
        call.ids.freeze(axis, f"{call.operator} treats every position of its own kind")
    return source


_TRANSFORMS = [f"fft_{kind}fft{n}" for n in ("", "2", "n") for kind in ("", "i", "r", "ir")]


@rule(
    *_TRANSFORMS, "fft_hfft", "fft_hfft2", "fft_hfftn", "fft_ihfft", "fft_ihfft2", "fft_ihfftn",
    "fft_fftshift", "fft_ifftshift",
)  # fmt: skip
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
