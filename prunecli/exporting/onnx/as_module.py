"""An exported file in the place of a network: judged as one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.exporting.onnx.evaluate import classifier_output, predict
from prunecli.exporting.onnx.runtime import fixed_batch, open_session

if TYPE_CHECKING:
    from pathlib import Path


class ExportedModel(nn.Module):
    """Runs a file in ONNX Runtime: normalised images to its `logits`, or its first output."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._session = open_session(path)
        self._output = classifier_output(self._session)

    def forward(self, images: Tensor) -> Tensor:
        """Return the output for images [n, C, H, W], on their device."""
        size = fixed_batch(self._session) or len(images)
        parts = [
            predict(self._session, self._output, np.ascontiguousarray(part.cpu().numpy()))
            for part in torch.split(images, size)
        ]
        return torch.from_numpy(np.concatenate(parts)).to(images.device)
