"""Cache of expensive arrays, kept between runs under the digest of what they came from."""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


def cache_folder() -> Path:
    """Return where arrays are kept: below `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "prunecli" / "embeddings"


def cached(
    parts: Iterable[bytes | str], make: Callable[[], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], bool]:
    """Return an array and whether it was found, under the digest of `parts`; else `make` it.

    A cache that cannot be read or written is no reason to fail: the array is made then.
    """
    digest = blake2b(digest_size=20)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    place = cache_folder() / f"{digest.hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.asarray(np.load(place, allow_pickle=False), np.float32), True
    made = make()
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f".{place.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.save(file, made, allow_pickle=False)
        unfinished.replace(place)
    return made, False
