"""Cache of expensive arrays, kept between runs under the digest of what they came from."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecli.atomic import atomic_write
from prunecli.errors import PruneError
from prunecli.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


DIGEST = 20
"""Bytes of the digest behind every array."""


def cache_folder() -> Path:
    """Return where arrays are kept: below `$XDG_CACHE_HOME`, or `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "prunecli" / "embeddings"


def cached(
    parts: Iterable[bytes | str],
    make: Callable[[], NDArray[np.float32]],
    *,
    say: Callable[[str], None],
) -> tuple[NDArray[np.float32], bool]:
    """Return an array and whether it was found, under the digest of `parts`; else `make` it.

    A cache that cannot be read or written is no reason to fail: the array is made then. `say` gets
    a sentence about an entry that was damaged.
    """
    digest = blake2b(digest_size=20)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    place = cache_folder() / f"{digest.hexdigest()}.npy"
    kept = _kept(place, say)
    if kept is not None:
        return kept, True
    made = make()
    with suppress(OSError, PruneError):
        place.parent.mkdir(parents=True, exist_ok=True)
        written = io.BytesIO()
        np.save(written, made, allow_pickle=False)
        with atomic_write(place) as unfinished:
            unfinished.write_bytes(written.getvalue() + _digest(written.getvalue()))
    return made, False


def _kept(place: Path, say: Callable[[str], None]) -> NDArray[np.float32] | None:
    """Return what the cache holds in a place; what is damaged is thrown away."""
    if not place.exists():
        return None
    try:
        content = read_bytes(place)
        array, written = content[:-DIGEST], content[-DIGEST:]
        if written == _digest(array):
            return np.asarray(np.load(io.BytesIO(array), allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError, PruneError):
        pass
    with suppress(OSError):
        place.unlink()
    say(f"an entry of the cache was damaged and is made anew: {place}")
    return None


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=DIGEST).digest()
