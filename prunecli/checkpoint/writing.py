"""Write a checkpoint, atomically, and the same bytes for the same checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from prunecli.atomic import atomic_write, unwritable
from prunecli.checkpoint.artefact import FORMAT, Checkpoint, header_to_json
from prunecli.checkpoint.compact import pack
from prunecli.checkpoint.digest import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def save(
    checkpoint: Checkpoint, path: Path | str, *, check: Callable[[Path], None] | None = None
) -> None:
    """Write `checkpoint`: `.pt` and `.pth` for `torch.load`, or `.safetensors`.

    Masked tensors are stored without their zeros. `check` looks at the written file before it takes
    its name; what it raises leaves nothing behind.

    Neither holds code: `.pt` is a dict that `torch.load(weights_only=True)` reads, with the weights
    under `state_dict`; `.safetensors` has the rest as JSON in its header. Raises `InputError`
    (`UNWRITABLE_OUTPUT`), and then leaves whatever was there before.
    """
    target = Path(path)
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        raise unwritable(
            target,
            f"the suffix {target.suffix!r} names no format",
            hint=f"end the name in one of {', '.join(_WRITERS)}",
        )
    packed, sparse = pack(checkpoint.tensors, checkpoint.masks)
    tensors = {name: _plain(tensor) for name, tensor in packed.items()}
    header = header_to_json(checkpoint, sparse=sparse)
    header["digest"] = digest(header, tensors)
    with atomic_write(target) as temporary:
        writer(header, tensors, temporary)
        if check is not None:
            check(temporary)


def _write_torch(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    # Through JSON and back, because pickle's bytes depend on which strings are one object.
    plain = json.loads(json.dumps(header))
    save_torch({**plain, "state_dict": dict(tensors)}, path)


def save_torch(value: Any, path: Path) -> None:
    """Write `value` with `torch.save`; raise `OSError` when the disk is full."""
    with path.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # torch reports a full disk as a mismatch of positions, raised while it cleans up.
            reason = error.__context__ if isinstance(error.__context__, OSError) else None
            raise OSError(reason.strerror if reason else "the disk may be full") from error


def _write_safetensors(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> None:
    # One metadata entry: the library keeps several in no fixed order.
    metadata = {FORMAT: json.dumps(header, sort_keys=True)}
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def _plain(tensor: Tensor) -> Tensor:
    """Return the values in a storage of their own: no tie, no view, no channels-last."""
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


_WRITERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Tensor], Path], None]] = {
    ".pt": _write_torch,
    ".pth": _write_torch,
    ".safetensors": _write_safetensors,
}
