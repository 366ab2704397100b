"""Pictures in both of their shapes: for a desk and for a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.html.parts import Drawing

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.pictures import Picture


def drawing(draw: Callable[..., Picture], *about: Any, caption: str = "", **more: Any) -> Drawing:
    """Return what `draw` draws, with the narrow picture that takes its place on a phone."""
    return Drawing(draw(*about, **more), caption, narrow=draw(*about, **more, narrow=True))
