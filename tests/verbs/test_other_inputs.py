"""Models that take no single batch of images go through the verbs, as files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.errors import InputError, LoadRefusedError
from prunecli.exporting import read_metadata
from prunecli.options import (
    BenchOptions,
    CompareOptions,
    ExportOptions,
    LoadOptions,
    PruneOptions,
)
from tests.support.structured_networks import Several

if TYPE_CHECKING:
    from pathlib import Path

SHAPES = (("image", (3, 8, 8), "float32"), ("mask", (1, 8, 8), "float32"), ("ids", (3,), "int64"))
NETS = """
from tests.support.structured_networks import Several, Volumes

def several():
    return Several()

def volumes():
    return Volumes()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Return a folder with the code and the weights of a model of several inputs."""
    (tmp_path / "nets_of_other_inputs.py").write_text(NETS)
    torch.manual_seed(0)
    torch.save(Several().state_dict(), tmp_path / "several.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("nets_of_other_inputs", None)


def reading(**more) -> LoadOptions:
    return LoadOptions(architecture="nets_of_other_inputs:several", **more)


def test_a_model_of_several_inputs_is_pruned_and_exported_from_files(folder: Path) -> None:
    pruned = verbs.prune(
        folder / "several.pt",
        budget=make_budget(flops=0.6),
        load=reading(input_shapes=SHAPES),
        output=folder / "slim.pt",
    )
    spec = read(pruned.output, reading()).checkpoint.input
    assert [(one.name, one.shape, one.dtype) for one in spec.arguments] == list(SHAPES)
    found = verbs.export(
        pruned.output,
        output=folder / "slim.onnx",
        against=folder / "several.pt",
        load=reading(),
        options=ExportOptions(runs=2, batches=(1,)),
    )
    assert [output.name for output in found.parity.outputs] == ["logits", "out.mask", "features"]
    assert found.benchmark[0].dense_ms is not None
    assert read_metadata(found.output).input == spec


def test_such_models_are_compared_timed_and_described(folder: Path) -> None:
    load = reading(input_shapes=SHAPES)
    dense = folder / "several.pt"
    slim = verbs.prune(dense, budget=make_budget(flops=0.6), load=load,
                       output=folder / "slim.pt").output  # fmt: skip
    file = verbs.export(slim, output=folder / "slim.onnx", load=reading(),
                        options=ExportOptions(benchmark=False)).output  # fmt: skip
    found = verbs.compare([slim, file, dense], load=load, options=CompareOptions(no_latency=True))
    same, whole = found.models[1:]
    assert same.agreement.max_rel_error < 1e-5
    assert whole.agreement.max_rel_error > 1e-3
    assert found.models[0].cost["flops"] < whole.cost["flops"]
    options = BenchOptions(runs=2, seconds=0.3, batches=(1,))
    (row,) = verbs.bench([slim, file], load=reading(), options=options).timings
    assert all(model.percentiles["p50"] > 0 for model in row.models)
    assert all(model.peak_bytes is not None for model in row.models)
    for one in (slim, file):
        assert verbs.info(one).input.arguments == (
            "image 3x8x8",
            "mask 1x8x8",
            "ids 3 (int64)",
        )


def test_such_a_file_says_its_format_to_older_versions(folder: Path) -> None:
    load = reading(input_shapes=SHAPES)
    report = verbs.prune(folder / "several.pt", budget=make_budget(flops=0.6), load=load,
                         output=folder / "slim.pt")  # fmt: skip
    assert torch.load(report.output)["format_version"] == 3


def test_images_of_a_folder_are_refused_before_any_work(folder: Path) -> None:
    load = reading(input_shapes=SHAPES)
    for run in (
        lambda: verbs.evaluate(folder / "several.pt", data="digits", load=load),
        lambda: verbs.prune(
            folder / "several.pt",
            budget=make_budget(flops=0.6),
            options=PruneOptions(signal="taylor"),
            data="digits",
            load=load,
        ),
    ):
        with pytest.raises(InputError, match="something else, image 3x8x8, mask 1x8x8") as caught:
            run()
        assert caught.value.code == "NO_IMAGE_INPUT"


def test_pixels_of_a_model_that_takes_none_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="does not take one batch of images") as caught:
        read(folder / "several.pt", reading(input_shapes=SHAPES, mean=(0.5, 0.5, 0.5)))
    assert caught.value.code == "BAD_INPUT_SPEC"


def test_shapes_that_nobody_says_are_asked_for(folder: Path) -> None:
    with pytest.raises(InputError, match="not known") as caught:
        read(folder / "several.pt", reading())
    assert "--input-shape 1x32x32x32" in caught.value.hint


def test_a_damaged_input_is_a_damaged_file(folder: Path) -> None:
    load = reading(input_shapes=SHAPES)
    report = verbs.prune(folder / "several.pt", budget=make_budget(flops=0.6), load=load,
                         output=folder / "slim.pt")  # fmt: skip
    held = torch.load(report.output)
    held["input"]["arguments"][0]["shape"] = [0]
    held.pop("digest", None)
    torch.save(held, folder / "bad.pt")
    with pytest.raises(LoadRefusedError) as caught:
        read(folder / "bad.pt", reading())
    assert caught.value.code == "CORRUPT_FILE"
