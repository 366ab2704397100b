"""A digest of all that an artefact holds, so that a bit that flipped is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

KEY = "digest"


def digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a header, without the digest in it, and of the tensors as stored."""
    return digest_of(header, ((name, *_content(tensors[name])) for name in sorted(tensors)))


def digest_of(
    header: Mapping[str, Any], contents: Iterable[tuple[str, str, tuple[int, ...], Any]]
) -> str:
    """Return the digest of a header and of tensors in the order of their names.

    A tensor is its name, the name of its type (`float32`), its shape and its bytes.
    """
    found = hashlib.sha256()
    described = {key: value for key, value in header.items() if key not in {KEY, "state_dict"}}
    found.update(json.dumps(described, sort_keys=True).encode())
    for name, dtype, shape, content in contents:
        found.update(f"\0{name}\0torch.{dtype}\0{shape}\0".encode())
        found.update(content)
    return f"sha256:{found.hexdigest()}"


def _content(tensor: Tensor) -> tuple[str, tuple[int, ...], Any]:
    import torch

    plain = tensor.detach().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
    return str(plain.dtype).removeprefix("torch."), tuple(plain.shape), content
