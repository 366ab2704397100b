"""ONNX Runtime sessions that run where they were told to, with a stated number of threads."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from prunecli.errors import DeviceError
from prunecli.exporting.onnx.metadata import corrupt_file, require_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

# A provider that is really used runs the arithmetic; shape bookkeeping may stay on the CPU.
HEAVY_OPERATORS = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul"}
    | {"FusedMatMul", "Attention", "MultiHeadAttention", "Einsum"}
)
_ELEMENT_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_SEVERITY_ERROR = 3


@dataclass(frozen=True)
class ProviderUse:
    """Which provider ran which node, as ONNX Runtime's own profile has it: `{node: provider}`."""

    heavy: Mapping[str, str]
    light: Mapping[str, str]


def physical_cores() -> int:
    """Return how many physical cores this process may use: affinity and CPU quota counted in."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(_cpu_count())
    cores = {_core_of(cpu) for cpu in usable}
    return max(1, min(len(cores), _cpu_quota(default=len(cores))))


def open_session(
    path: Path, *, provider: str = CPU_PROVIDER, threads: int | None = None, profile: str = ""
) -> Any:
    """Return an `onnxruntime.InferenceSession` on exactly `provider` with `threads` threads.

    The CPU provider is listed behind another one because shape arithmetic has no kernel elsewhere;
    `assert_provider` tells whether anything more than that ended up there. `profile` is the prefix
    of a profile file. Raises `InputError`, `LoadRefusedError` (`CORRUPT_FILE`), `DeviceError`.
    """
    require_file(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or physical_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = _SEVERITY_ERROR
    # Idle workers of one session would otherwise spin on the cores of the next: of two copies of
    # one network, timed in turns with two threads, one came out up to 1.27 times faster.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_profiling = bool(profile)
    if profile:
        options.profile_file_prefix = profile
    chain = [provider] if provider == CPU_PROVIDER else [provider, CPU_PROVIDER]
    try:
        session = ort.InferenceSession(str(path), options, providers=chain)
    except Exception as error:
        raise corrupt_file(path, error) from error
    session.disable_fallback()
    if provider not in session.get_providers():
        raise _fell_back(provider, "it could not be started", str(path))
    return session


def random_inputs(session: Any, *, batch: int, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Return `batch` standard normal inputs `[batch, *shape]` of the type the session takes."""
    values = np.random.default_rng(seed).standard_normal((batch, *shape))
    return values.astype(_ELEMENT_TYPES.get(session.get_inputs()[0].type, np.float32))


def run(session: Any, inputs: NDArray[Any]) -> NDArray[Any]:
    """Return the session's first output for `inputs`."""
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})
    return np.asarray(outputs[0])


def assert_provider(path: Path, *, provider: str, threads: int, shape: tuple[int, ...]) -> None:
    """Raise `DeviceError` (`PROVIDER_FELL_BACK`) unless `provider` really runs the network.

    ONNX Runtime accepts a provider and then quietly runs nodes elsewhere (onnxruntime #17801,
    #23372); only its profile tells. Every convolution and matrix product must be on `provider`.
    """
    use = profile_providers(path, provider=provider, threads=threads, shape=shape)
    check_use(use, provider=provider, where=str(path))


def check_use(use: ProviderUse, *, provider: str, where: str) -> None:
    """Raise `DeviceError` (`PROVIDER_FELL_BACK`) unless `provider` ran all heavy nodes."""
    strays = sorted(node for node, used in use.heavy.items() if used != provider)
    used = {*use.heavy.values(), *use.light.values()}
    if strays:
        raise _fell_back(provider, f"{len(strays)} heavy nodes ran elsewhere: {strays[:3]}", where)
    if provider not in used:
        raise _fell_back(provider, f"only {sorted(used)} ran", where)


def profile_providers(
    path: Path, *, provider: str, threads: int, shape: tuple[int, ...]
) -> ProviderUse:
    """Run the network once under ONNX Runtime's profiler and return who ran what."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "profile")
        session = open_session(path, provider=provider, threads=threads, profile=prefix)
        run(session, random_inputs(session, batch=1, shape=shape, seed=0))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_profile(events)


def read_profile(events: list[dict[str, Any]]) -> ProviderUse:
    """Return `{node: provider}` for the kernels in a profile's events."""
    heavy: dict[str, str] = {}
    light: dict[str, str] = {}
    for event in events:
        arguments = event.get("args") or {}
        provider = arguments.get("provider")
        if event.get("cat") != "Node" or not provider:
            continue
        name = str(event["name"]).removesuffix("_kernel_time")
        place = heavy if arguments.get("op_name") in HEAVY_OPERATORS else light
        place[name] = str(provider)
    return ProviderUse(heavy, light)


def _fell_back(provider: str, reason: str, where: str) -> DeviceError:
    return DeviceError(
        f"{provider} was asked for, but {reason}",
        code="PROVIDER_FELL_BACK",
        where=where,
        hint="check that the CUDA and cuDNN versions fit the installed onnxruntime-gpu",
    )


def _cpu_count() -> int:
    return os.cpu_count() or 1


def _core_of(cpu: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return siblings.read_text(encoding="ascii").strip()
    except OSError:  # not Linux, or a sandbox that hides the topology: every CPU counts
        return str(cpu)


def _cpu_quota(*, default: int) -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return default if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return default
