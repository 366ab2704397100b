"""Where training runs and in which precision: accelerate decides the place, a table the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunecli.errors import DeviceError, InputError
from prunecli.processes import join, joined

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator


AUTO = "auto"
"""The device that accelerate takes: a GPU if there is one."""


def make_accelerator(amp: str, device: str = AUTO) -> Accelerator:
    """Return accelerate's view of this process: its device, its peers, its precision.

    Joins the other processes of `accelerate launch` and `torchrun`. Raises `InputError`
    (`UNKNOWN_PRECISION`), and what `join` and `check_device` raise.
    """
    from accelerate import Accelerator, PartialState
    from accelerate.state import AcceleratorState

    join()
    check_device(device)
    state = PartialState()
    if state.num_processes == 1:
        usual = torch.device("cpu") if state._cpu else state.default_device  # noqa: SLF001
        state.device = usual if device == AUTO else torch.device(device)
    precision = _precision(amp, state.device)
    # accelerate keeps the precision of the first run in a process and refuses any other.
    AcceleratorState._reset_state(reset_partial_state=False)  # noqa: SLF001
    return Accelerator(mixed_precision=precision)


def check_device(name: str) -> None:
    """Raise `DeviceError` (`DEVICE_MISSING`) for a device to train on that is not there.

    Of several processes each has its own, by its number on the machine.
    """
    if name == AUTO:
        return
    asked, processes = torch.device(name), joined()
    if processes.count > 1:
        from accelerate import PartialState

        own = PartialState().device
        if asked.type != own.type or ":" in name:
            raise DeviceError(
                f"--device {name}: {processes.count} processes train, each on a device of its own "
                f"({own})",
                code="DEVICE_MISSING",
                hint="leave --device out; ACCELERATE_USE_CPU=true trains on CPUs",
            )
        return
    if asked.type == "cpu":
        return
    there = torch.cuda.device_count() if asked.type == "cuda" else int(_has_mps())
    if (asked.index or 0) >= there:
        raise DeviceError(
            f"no {asked.type.upper()} device is there"
            if not there
            else f"there are {there} CUDA devices, counted from 0",
            code="DEVICE_MISSING",
            where=f"--device {name}",
            hint="leave --device out, or run on a machine that has it",
        )


def device_of(name: str) -> torch.device | None:
    """Return where scores are computed beside a training on a device; None: where it is usual."""
    return None if name == AUTO or joined().count > 1 else torch.device(name)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


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
    """Choose by device: a CPU that multiplies in bf16 gains from it, a GPU has bf16 or fp16."""
    if device.type == "cpu":
        return "bf16" if cpu_has_bf16() else "no"
    if device.type != "cuda":
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""What a processor that multiplies bfloat16 numbers says that it has; others emulate it slowly."""

CPUINFO = Path("/proc/cpuinfo")


def cpu_has_bf16() -> bool:
    """Tell whether this processor multiplies in bfloat16, and torch was built to use that."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    asked = getattr(torch.cpu, "get_capabilities", None)  # a newer torch alone has it
    known = asked() if asked is not None else dict.fromkeys(_linux_flags(CPUINFO), True)
    return any(known.get(flag) for flag in BF16_FLAGS)


def _linux_flags(path: Path) -> frozenset[str]:
    """Return the flags of the first processor, as Linux tells them; none anywhere else."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def precision_of(accelerator: Accelerator) -> str:
    """Return the precision of the passes of training, in a word for people."""
    precision = str(accelerator.mixed_precision)
    return "fp32" if precision == "no" else precision


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
