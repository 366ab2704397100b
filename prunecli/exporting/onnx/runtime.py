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

    from prunecli.architectures.inputs import InputSpec

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
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
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


def fixed_batch(session: Any) -> int | None:
    """Return the only batch size that a file takes; None for any, or where no input has a batch."""
    sizes = [value.shape[0] for value in session.get_inputs() if value.shape]
    return next((size for size in sizes if isinstance(size, int)), None) if sizes else None


def random_feeds(
    session: Any, spec: InputSpec, *, batch: int, seed: int
) -> dict[str, NDArray[Any]]:
    """Return `batch` inputs of a network by name: standard normal, or integers of their range.

    They have the types that the session takes.
    """
    generator = np.random.default_rng(seed)
    feeds = {}
    for taken, argument in zip(session.get_inputs(), spec.tensors, strict=True):
        shape = (batch, *(argument.shape or ())) if argument.batched else (argument.shape or ())
        kind = _ELEMENT_TYPES.get(taken.type, np.float32)
        if np.issubdtype(kind, np.floating):
            feeds[taken.name] = np.asarray(generator.standard_normal(shape)).astype(kind)
        else:
            low, high = argument.values
            feeds[taken.name] = np.asarray(generator.integers(low, high + 1, shape)).astype(kind)
    return feeds


def run(session: Any, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the session's outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, map(np.asarray, session.run(None, dict(feeds))), strict=True))


def assert_provider(
    path: Path,
    *,
    provider: str,
    threads: int,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
) -> None:
    """Raise `DeviceError` (`PROVIDER_FELL_BACK`) unless `provider` really runs the network.

    ONNX Runtime accepts a provider and then quietly runs nodes elsewhere (onnxruntime #17801,
    #23372); only its profile tells. Every convolution and matrix product must be on `provider`.
    """
    use = profile_providers(path, provider=provider, threads=threads, input=input)
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
    path: Path,
    *,
    provider: str,
    threads: int,
    input: InputSpec,  # noqa: A002
) -> ProviderUse:
    """Run the network once under ONNX Runtime's profiler and return who ran what."""
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / "profile")
        session = open_session(path, provider=provider, threads=threads, profile=prefix)
        run(session, random_feeds(session, input, batch=fixed_batch(session) or 1, seed=0))
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
