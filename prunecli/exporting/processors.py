"""What this processor can do with small integers."""

from __future__ import annotations

import platform
from pathlib import Path

_X86 = frozenset({"x86_64", "amd64"})
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_CPUINFO = Path("/proc/cpuinfo")


def overflows_int8() -> bool:
    """Tell whether INT8 kernels add two products in 16 bits here: x86 processors without VNNI.

    Where nothing tells, they are taken not to.
    """
    if platform.machine().lower() not in _X86:
        return False
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(flags) and not _VNNI & set(flags.split())
