"""Where neighbours are looked for and autoencoders trained."""

from __future__ import annotations

import torch

from prunecli.errors import DeviceError
from prunecli.preflight.analysis import bad_device


def device_named(name: str) -> torch.device:
    """Return the device of a name such as `cpu` or `cuda:1`; `auto` takes a GPU where one is.

    Raises `InputError` (`BAD_DEVICE`) and, for a device that is not there, `DeviceError`
    (`DEVICE_MISSING`).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise bad_device(name) from error
    try:
        torch.zeros(1, device=device).cpu()
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise DeviceError(
            f"the device {name!r} is not there",
            code="DEVICE_MISSING",
            where=f"--device {name}",
            hint="leave --device out to take what is there",
        ) from error
    return device
