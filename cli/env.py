"""`prunecli env`: versions and devices, for bug reports."""

import os
import platform
import sys
from functools import partial

from .outcome import Outcome
from .reports import EnvReport
from .session import Session
from .signature import command

PACKAGES = (
    "prunecli",
    "torch",
    "torchvision",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "fvcore",
    "scikit-learn",
    "safetensors",
    "accelerate",
    "typer",
    "rich",
    "timm",
)


@partial(command, works=False)
def env(session: Session) -> Outcome:
    """Show versions, devices, and which ONNX Runtime providers load.

    Examples:
    $ prunecli env
    $ prunecli env --json
    """
    with session.screen.loading(), session.screen.working():
        report = EnvReport(
            python=sys.version.split()[0],
            platform=platform.platform(),
            cpus=len(os.sched_getaffinity(0)),
            packages={name: _version(name) for name in PACKAGES},
            cuda=_cuda_devices(),
            providers=_providers(),
        )
    return Outcome("env", report)


def _version(package: str) -> str | None:
    from importlib import metadata  # here, so that no other verb waits for it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda_devices() -> tuple[str, ...]:
    import torch

    return tuple(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))


def _providers() -> dict[str, bool]:
    """Return each provider that ONNX Runtime claims, and whether a session really runs on it."""
    import onnxruntime

    return {name: _loads(name) for name in onnxruntime.get_available_providers()}


def _loads(provider: str) -> bool:
    import onnxruntime
    from onnx import TensorProto, helper

    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    relu = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([relu], "probe", floats[:1], floats[1:])
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=[provider]
        )
    except Exception:  # noqa: BLE001 - whatever a provider raises, it does not load
        return False
    return bool(session.get_providers()[0] == provider)
