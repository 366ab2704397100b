"""An export format is one entry: the verbs write, prove and score what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from prunecli import verbs
from prunecli.errors import InputError, ProofError
from prunecli.evaluation.images import evaluate as score
from prunecli.exporting import EXPORT_FORMATS, ONNX, ExportFormat, Written, find_format, format_of
from prunecli.html import export_page
from prunecli.options import ExportOptions, LoadOptions
from prunecli.report import Parity
from prunecli_cli.tables import view
from tests.support.samples import VGG

if TYPE_CHECKING:
    from pathlib import Path


def write_program(model: nn.Module, path: Path, *, input, prove=None, **_: Any) -> Written:  # noqa: A002
    """Write torch's own exported program, with a batch of any size."""
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(model, (torch.zeros(2, *input.shape),), dynamic_shapes=(batch,))
    temporary = path.with_suffix(".new.pt2")
    torch.export.save(program, temporary)
    if prove is not None:
        prove(temporary)
    temporary.replace(path)
    return Written(path, path.stat().st_size)


def check_program(model: nn.Module, path: Path, *, input, inputs, tolerance, seed) -> Parity:  # noqa: A002
    values = torch.randn(inputs, *input.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected = model(values)
        error = float((run_program(path)(values) - expected).abs().max() / expected.abs().max())
    if error > tolerance:
        raise ProofError("not the same", code="PARITY_FAILED")
    return Parity(error, inputs)


def run_program(path: Path) -> nn.Module:
    return torch.export.load(path).module()


class Anything(nn.Module):
    """An exported program as a module that can be put into evaluation mode."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.program = [run_program(path)]

    def forward(self, x):
        return self.program[0](x)


def score_program(path: Path, images, *, batch_size, input, progress):  # noqa: A002
    return score(Anything(path), images, input=input, batch_size=batch_size, device="cpu")


PROGRAM = ExportFormat(
    label="torch.export",
    endings=(".pt2",),
    write=write_program,
    check=check_program,
    evaluate=score_program,
    input_of=lambda _: None,
)


@pytest.fixture
def program(monkeypatch) -> ExportFormat:
    """Register a format, for one test."""
    monkeypatch.setattr(EXPORT_FORMATS, "_entries", dict(EXPORT_FORMATS._entries))
    return EXPORT_FORMATS.add("program", PROGRAM, summary="torch's exported program.")


def test_a_registered_format_is_written_proven_told_and_scored(program, tmp_path: Path) -> None:
    path = tmp_path / "slim.pt2"
    report = verbs.export(VGG, output=path)
    assert (report.output, report.format, report.opset) == (path, "torch.export", None)
    assert report.parity.max_rel_error < 1e-5
    assert report.benchmark == ()
    assert "torch.export files cannot be timed here" in report.warnings
    (facts,) = view(report, rows=None)
    assert str(next(facts.columns[0].cells)) == "torch.export"
    assert "torch.export file" in export_page(report)
    load = LoadOptions(input_size=(8, 8), mean=(0.305,), std=(0.376,))
    whole = verbs.evaluate(VGG, data="digits", limit=50)
    assert verbs.evaluate(path, data="digits", limit=50, load=load).accuracy == whole.accuracy


def test_a_file_that_computes_something_else_is_not_written(program, tmp_path: Path) -> None:
    path = tmp_path / "slim.pt2"
    with pytest.raises(ProofError):
        verbs.export(VGG, output=path, options=ExportOptions(tolerance=-1.0, benchmark=False))
    assert not path.exists()


def test_the_ending_of_a_file_chooses_its_format(program, tmp_path: Path) -> None:
    assert find_format(tmp_path / "net.ONNX") is ONNX
    assert find_format(tmp_path / "net.pt2") is program
    assert find_format(tmp_path / "net.pt") is None


def test_an_ending_of_no_format_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.engine' names no format") as caught:
        format_of(tmp_path / "net.engine")
    assert ".onnx" in caught.value.hint
    with pytest.raises(InputError, match="names no format"):
        verbs.export(VGG, output=tmp_path / "net.engine")


def test_a_format_without_a_precision_says_so_before_any_work(program, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"torch\.export files cannot be written in FP16"
    ) as caught:
        verbs.export(VGG, output=tmp_path / "net.pt2", options=ExportOptions(fp16=True))
    assert caught.value.hint == "leave --fp16 out"
    assert not [*tmp_path.iterdir()]


def test_every_registered_format_has_endings_of_its_own() -> None:
    endings = [ending for entry in EXPORT_FORMATS for ending in entry.value.endings]
    assert len(set(endings)) == len(endings)
    assert all(ending.startswith(".") and ending == ending.lower() for ending in endings)
