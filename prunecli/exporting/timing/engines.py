"""What runs networks to be timed: devices of ONNX Runtime, and other runtimes for their files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime as ort
import torch
from torch import nn

from prunecli.architectures.examples import example_tensors, positional
from prunecli.errors import DeviceError
from prunecli.exporting.onnx.parity import dtype_of
from prunecli.exporting.onnx.runtime import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    assert_provider,
    open_session,
    random_feeds,
)
from prunecli.exporting.timing.clocks import CLOCKS, Run, clock_kind
from prunecli.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.architectures.reference import InputSpec

CPU = "cpu"
ONNX_RUNTIME = "onnxruntime"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class Contestant:
    """One network in its two forms; `model` is needed only where ONNX Runtime has no GPU."""

    path: Path
    model: nn.Module | None = None


@dataclass(frozen=True)
class Setting:
    """Where one timing runs and on what."""

    input: InputSpec
    batch: int
    threads: int
    seed: int


Runner = Callable[[], None]


@dataclass(frozen=True)
class Engine:
    """Something that runs networks: the provider's short name and how a runner is made."""

    provider: str
    prepare: Callable[[Contestant, Setting], Runner]


# Each entry looks at the machine and at the contestants and returns the engine to use.
DEVICES: Registry[Callable[[Sequence[Contestant]], Engine]] = Registry("device")


@DEVICES.register(CPU, summary="ONNX Runtime on the CPU.")
def find_cpu(_: Sequence[Contestant]) -> Engine:
    """Return ONNX Runtime's CPU engine, which every installation has."""
    return Engine(CPU_PROVIDER, _onnx_runner(CPU_PROVIDER, "cpu"))


@DEVICES.register("cuda", summary="ONNX Runtime on an NVIDIA GPU, or torch where it has no CUDA.")
def find_cuda(contestants: Sequence[Contestant]) -> Engine:
    """Return ONNX Runtime's CUDA engine, or torch's; raise `DeviceError` without a GPU."""
    if not torch.cuda.is_available():
        raise DeviceError(
            "no CUDA device is there",
            code="DEVICE_MISSING",
            where="--device cuda",
            hint="leave --device cuda out, or run on a machine with an NVIDIA GPU and its driver",
        )
    if CUDA_PROVIDER in ort.get_available_providers():
        _preload_cuda()
        return Engine(CUDA_PROVIDER, _proven_runner(CUDA_PROVIDER))
    if any(contestant.model is None for contestant in contestants):
        raise DeviceError(
            "a GPU is there, but the installed onnxruntime cannot use it",
            code="DEVICE_MISSING",
            where="--device cuda",
            hint="install onnxruntime-gpu: pip install 'prunecli[gpu]'",
        )
    return Engine("torch", torch_runner("cuda"))


def _onnx_runner(provider: str, device: str) -> Callable[[Contestant, Setting], Runner]:
    def prepare(contestant: Contestant, setting: Setting) -> Runner:
        session = open_session(contestant.path, provider=provider, threads=setting.threads)
        return _bound_runner(session, setting, device=device)

    return prepare


def _bound_runner(session: Any, setting: Setting, *, device: str) -> Runner:
    # Inputs and outputs stay on the device: the network is timed, not the copying.
    feeds = random_feeds(session, setting.input, batch=setting.batch, seed=setting.seed)
    binding = session.io_binding()
    for name, values in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)

    def once() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return Run(once, CLOCKS[clock_kind(device, setting.threads)])


def _proven_runner(provider: str) -> Callable[[Contestant, Setting], Runner]:
    """Return what makes runners on a GPU; one that falls back to the CPU is an error."""

    def prepare(contestant: Contestant, setting: Setting) -> Runner:
        assert_provider(
            contestant.path, provider=provider, threads=setting.threads, input=setting.input
        )
        return _onnx_runner(provider, "cuda")(contestant, setting)

    return prepare


def _preload_cuda() -> None:
    # torch brings CUDA and cuDNN as packages; onnxruntime-gpu finds them only when asked to.
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()


def torch_runner(device: str) -> Callable[[Contestant, Setting], Runner]:
    """Return what makes a runner of a contestant's `model` in torch on `device`."""

    def prepare(contestant: Contestant, setting: Setting) -> Runner:
        assert contestant.model is not None
        model = copy.deepcopy(contestant.model).to(device).eval()
        tensors = example_tensors(
            setting.input, batch=setting.batch, seed=setting.seed, dtype=dtype_of(model)
        )
        given = positional(model, setting.input, [tensor.to(device) for tensor in tensors])

        def once() -> None:
            with torch.inference_mode():
                model(*given)
            if device == "cuda":  # a GPU is only told to work; waiting for it is the time
                torch.cuda.synchronize()

        return once

    return prepare


RUNTIMES: Registry[Callable[[str, Sequence[Contestant]], Engine]] = Registry("runtime")
"""Each entry looks for a device and at the contestants, and returns the engine to use."""


def find_engines(
    devices: Sequence[str], runtimes: Sequence[str], contestants: Sequence[Contestant]
) -> dict[tuple[str, str], Engine]:
    """Return the engine of every runtime on every device; raise `DeviceError` for one not there."""
    return {
        (runtime, device): RUNTIMES.get(runtime)(device, contestants)
        for device in devices
        for runtime in runtimes
    }


def check_devices(
    devices: Sequence[str],
    contestants: Sequence[Contestant] = (),
    *,
    runtimes: Sequence[str] = (ONNX_RUNTIME,),
) -> None:
    """Raise what `benchmark` would raise for devices that are not there, before any work."""
    find_engines(devices, runtimes, contestants)


@RUNTIMES.register(ONNX_RUNTIME, summary="ONNX Runtime, on every device.", source="onnxruntime.ai")
def find_onnx_runtime(device: str, contestants: Sequence[Contestant]) -> Engine:
    """Return ONNX Runtime's engine on a device."""
    return DEVICES.get(device)(contestants)


@RUNTIMES.register("openvino", summary="OpenVINO, on the CPU.", source="docs.openvino.ai")
def find_openvino(device: str, _: Sequence[Contestant]) -> Engine:
    """Return OpenVINO's engine on the CPU; raise `DeviceError` where it is not installed."""
    from prunecli.exporting.timing.openvino import check_openvino, openvino_run

    if device != CPU:
        raise _not_there("openvino", device, "OpenVINO runs on the CPU here")
    check_openvino()

    def prepare(contestant: Contestant, setting: Setting) -> Runner:
        return openvino_run(
            contestant.path,
            input=setting.input,
            batch=setting.batch,
            threads=setting.threads,
            seed=setting.seed,
        )

    return Engine("OpenVINO", prepare)


@RUNTIMES.register(
    "tensorrt", summary="TensorRT, as a provider of ONNX Runtime.", source="onnxruntime.ai"
)
def find_tensorrt(device: str, _: Sequence[Contestant]) -> Engine:
    """Return ONNX Runtime's TensorRT engine; raise `DeviceError` where it is not there."""
    if device != "cuda":
        raise _not_there("tensorrt", device, "TensorRT runs on --device cuda")
    if TENSORRT_PROVIDER not in ort.get_available_providers() or not torch.cuda.is_available():
        raise _not_there("tensorrt", device, "a GPU, TensorRT and onnxruntime-gpu are needed")
    _preload_cuda()
    return Engine(TENSORRT_PROVIDER, _proven_runner(TENSORRT_PROVIDER))


def _not_there(runtime: str, device: str, why: str) -> DeviceError:
    return DeviceError(
        f"--runtime {runtime} is not there for {device}: {why}",
        code="DEVICE_MISSING",
        where=f"--device {device}",
        hint=f"leave --runtime {runtime} out, or give another --device",
    )
