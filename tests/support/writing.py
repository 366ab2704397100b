"""Every verb that writes, on a small network and a few images, and what has to hold afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from prunecli.checkpoint import load
from prunecli.lifetime import claims
from prunecli_cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
MODEL = "digits_vgg.safetensors"
QUICK = ("--data", "digits", "--epochs", "1", "--overwrite")

VERBS: Mapping[str, tuple[str, ...]] = {
    "prune": ("prune", MODEL, "--flops", "0.5", "--out", "out.pt", "--overwrite",
              "--report", "page.html"),
    "prune weights": ("prune", MODEL, "--granularity", "weight", "--sparsity", "0.9",
                      "--out", "out.safetensors", "--overwrite"),
    "finetune": ("finetune", MODEL, *QUICK, "--teacher", "none", "--out", "out.pt",
                 "--record-learnability", "record.parquet"),
    "export": ("export", MODEL, "--out", "out.onnx", "--no-benchmark", "--overwrite"),
    "analyze": ("analyze", MODEL, "--report", "page.html", "--overwrite"),
    "sweep": ("prune", MODEL, "--sweep", "flops=0.5:0.7:0.2", "--data", "digits",
              "--out", "out.csv", "--overwrite"),
}  # fmt: skip
"""The command lines by name; what they write is in the folder that they run in."""


def make_folder(folder: Path) -> Path:
    """Return a folder with the model, and with older outputs that are whole."""
    folder.mkdir()
    shutil.copy(SAMPLES / MODEL, folder / MODEL)
    shutil.copy(SAMPLES / MODEL, folder / "out.safetensors")
    shutil.copy(Path(__file__).resolve().parents[1] / "artefacts/files/graph.pt", folder / "out.pt")
    (folder / "page.html").write_text("<!doctype html></html>")
    return folder


def command(folder: Path, words: tuple[str, ...]) -> Callable[[], int]:
    """Return what runs a command line in a folder, in a forked process."""

    def work() -> int:
        import os
        import sys

        import torch

        os.chdir(folder)
        torch.set_num_threads(1)
        sys.argv = ["prunecli", *words]
        run()
        return 0

    return work


def broken(folder: Path) -> list[str]:
    """Return the files that are not whole, once the next run has cleaned up."""
    claims._cleaned.clear()
    for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        claims.forget_dead(place)
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not _is_whole(path)
    ]


def _is_whole(path: Path) -> bool:
    if path.name.endswith((".tmp", ".lock")):
        return False
    try:
        _CHECKS.get(path.suffix, _holds_something)(path)
    except Exception:  # noqa: BLE001 - that is the answer
        return False
    return True


def _checkpoint(path: Path) -> None:
    if path.name == "state.pt":
        from prunecli.training.state import read_fields

        read_fields(path, path.read_bytes())
    else:
        load(path)


def _page(path: Path) -> None:
    assert path.read_text().rstrip().endswith("</html>")


def _record(path: Path) -> None:
    from prunecli.learnability.record import read_record

    read_record(path)


def _holds_something(path: Path) -> None:
    assert path.stat().st_size > 0


_CHECKS: Mapping[str, Callable[[Path], object]] = {
    ".pt": _checkpoint,
    ".safetensors": _checkpoint,
    ".onnx": lambda path: onnx.checker.check_model(str(path)),
    ".html": _page,
    ".parquet": _record,
}
