"""How a model is to be read: choices that no file can be read by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.errors import InputError
from prunecli.preflight.names import check_architecture

if TYPE_CHECKING:
    from prunecli.options import LoadOptions


def check_loading(options: LoadOptions) -> None:
    """Raise `InputError` for an architecture that there is not, or contradicting channels."""
    if options.architecture is not None:
        check_architecture(options.architecture)
    mean, std = options.mean, options.std
    if mean and std and len(mean) != len(std):
        raise InputError(
            f"--mean has {len(mean)} channels, --std {len(std)}",
            code="BAD_OPTION",
            hint="give one number per channel in both, such as 0.5,0.5,0.5",
        )
