"""ONNX Runtime beside torch, by itself: every output of a file on given images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from prunecli.graph.tracing.record import tensors_in

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


def relative_differences(model: nn.Module, path: Path, images: Tensor) -> list[float]:
    """Return how far every output of a file is from torch's, relative to its largest value.

    Outputs of another shape, or another number of them, are infinitely far.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    found = session.run(None, {given.name: images.numpy()})
    with torch.no_grad():
        expected = [value.numpy() for value in tensors_in(model(images))]
    if len(found) != len(expected):
        return [np.inf]
    return [
        float(np.abs(one - other).max() / (np.abs(other).max() or 1.0))
        if one.shape == other.shape
        else np.inf
        for one, other in zip(found, expected, strict=True)
    ]
