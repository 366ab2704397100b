"""Rules of operators that read images at boxes, offsets and coordinates: detection and flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.graph.operators import DEFORMABLE_CONVOLUTIONS
from prunecli.graph.rules.call import Annotation, Call, no_axes, rule
from prunecli.graph.rules.compute import convolution
from prunecli.graph.rules.pointwise import pointwise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prunecli.graph.coupling.ids import Axes, Axis


@rule("roi_align", "roi_pool")
def box_pool(call: Call) -> Annotation:
    """Ids pass; positions are read at boxes."""
    _hold(call, "rois")
    image, channels, *positions = call.axes("input")
    _stay(call, (image, *positions), "an image with boxes")
    pooled = (None, channels, None, None)
    return pooled if call.operator == "roi_align" else [pooled, pooled]


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def sample(call: Call) -> Axes:
    """Ids pass; positions are read at the coordinates of a grid."""
    (images, channels, *positions), (grids, *places) = call.axes("input"), call.axes("grid")
    _stay(call, positions, "positions")
    _stay(call, places, "grid")
    return (call.ids.tie(images, grids), channels, *(None for _ in positions))


@rule("ps_roi_align", "ps_roi_pool")
def position_box_pool(call: Call) -> Annotation:
    """Each position of a box reads channels of its own: all stay."""
    for name in ("input", "rois"):
        _hold(call, name)
    return [(None, None, None, None)] * 2


@rule("nms")
def suppress(call: Call) -> Axes:
    """Boxes compete, and have no channels."""
    for name in ("dets", "scores"):
        _hold(call, name)
    return (None,)


@rule("where")
def choose(call: Call) -> Annotation:
    """Choose between tensors by a mask; of a mask alone, the positions, for which all stay."""
    if "self" in call.arguments:
        return pointwise(call)
    for axis in call.axes("condition"):
        call.ids.freeze(axis, "is searched for positions")
    return no_axes(call.node)


@rule(*DEFORMABLE_CONVOLUTIONS)
def deformable_convolution(call: Call) -> Annotation:
    """Weights as in a convolution; the channels of offsets and mask are positions of the kernel."""
    for name in ("offset", "mask"):
        _hold(call, name)
    _stay(call, call.axes("input")[:1], "images with offsets")
    if call.arguments["offset_groups"] > 1:
        call.ids.freeze(call.axes("input")[1], "offsets of their own for groups of channels")
    return convolution(call)


def _hold(call: Call, name: str) -> None:
    _stay(call, call.axes(name), name)


def _stay(call: Call, axes: Iterable[Axis], what: str) -> None:
    for axis in axes:
        call.ids.freeze(axis, f"{call.operator} reads these as {what}")
