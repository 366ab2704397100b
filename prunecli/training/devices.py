"""Where training runs and in which precision: accelerate decides the place, a table the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator


def make_accelerator(amp: str) -> Accelerator:
    """Return accelerate's view of this process: its device, its peers, its precision.

    Respects `accelerate launch` and `torchrun`. Raises `InputError` (`UNKNOWN_PRECISION`).
    """
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    device = PartialState().device
    precision = _precision(amp, device)
    # accelerate keeps the precision of the first run in a process and refuses any other.
    AcceleratorState._reset_state(reset_partial_state=False)  # noqa: SLF001
    return Accelerator(mixed_precision=precision)


def is_main_process() -> bool:
    """Tell whether this process writes the results; the others of `torchrun` only compute."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _precision(amp: str, device: torch.device) -> str:
    choose = PRECISIONS.get(amp)
    if choose is None:
        raise InputError(
            f"unknown mixed precision {amp!r}",
            code="UNKNOWN_PRECISION",
            hint=f"known: {', '.join(PRECISIONS)}",
        )
    return choose(device)


def _automatic(device: torch.device) -> str:
    """Choose by device: a CPU gains nothing for networks this small, a GPU has bf16 or fp16."""
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _half(device: torch.device) -> str:
    if device.type == "cpu":
        raise InputError(
            "fp16 needs a GPU",
            code="UNKNOWN_PRECISION",
            hint="use --amp bf16 or --amp no on a CPU",
        )
    return "fp16"


PRECISIONS: dict[str, Callable[[torch.device], str]] = {
    "auto": _automatic,
    "no": lambda _device: "no",
    "bf16": lambda _device: "bf16",
    "fp16": _half,
}
"""What `--amp` takes, and accelerate's word for it on a device."""
