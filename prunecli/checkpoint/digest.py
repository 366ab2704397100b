"""A digest of all that an artefact holds, so that a bit that flipped is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

KEY = "digest"


def digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a header, without the digest in it, and of the tensors as stored."""
    found = hashlib.sha256()
    described = {key: value for key, value in header.items() if key not in {KEY, "state_dict"}}
    found.update(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{found.hexdigest()}"
