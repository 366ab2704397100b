"""The sets of weights in a file: what each holds, from the headers of its tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prunecli.checkpoint.headers import TensorHeader
from prunecli.report import WeightSet

# The ends of the names of what is stored beside parameters: statistics and tables.
_BUFFERS = (
    "running_mean",
    "running_var",
    "num_batches_tracked",
    "relative_coords_table",
    "relative_position_index",
    "attn_mask",
)


def weights_of(place: str, role: str, tensors: Mapping[str, Any]) -> WeightSet:
    """Return what a set of weights holds, from the headers of its tensors."""
    headers: Mapping[str, TensorHeader] = tensors
    kinds = Counter[str]()
    for tensor in headers.values():
        kinds[tensor.dtype] += tensor.count
    return WeightSet(
        place=place,
        role=role,
        tensors=len(headers),
        parameters=sum(
            tensor.count
            for name, tensor in headers.items()
            if tensor.is_floating and not name.endswith(_BUFFERS)
        ),
        bytes=sum(tensor.bytes for tensor in headers.values()),
        dtypes=dict(kinds),
    )


def further_sets(value: Any, place: str) -> Iterator[WeightSet]:
    """Yield what else holds tensors beside the weights at `place`, entry by entry."""
    if not place or not isinstance(value, Mapping):
        return
    for key, item in value.items():
        found = dict(_tensors_in(item))
        if found and str(key) != place.partition(".")[0]:
            role = "optimizer" if str(key).startswith("optim") else "other"
            yield weights_of(str(key), role, found)


def _tensors_in(value: Any) -> Iterator[tuple[str, TensorHeader]]:
    """Yield all tensors in nested dicts and lists, each container once."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, TensorHeader):
            yield path, item
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            pairs = item.items() if isinstance(item, Mapping) else enumerate(item)
            waiting += [(f"{path}.{key}", inner) for key, inner in pairs]
