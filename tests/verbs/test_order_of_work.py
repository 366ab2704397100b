"""What is known to be wrong is said before the long work, and before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prunecli import verbs
from prunecli.budget import make_budget
from prunecli.errors import InputError
from prunecli.methods.iterative import Iterative
from prunecli.methods.road import check_trained
from prunecli.options import LatencyOptions, PruneOptions, TrainingOptions

if TYPE_CHECKING:
    from prunecli.data import ImageSet


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (PruneOptions(align=0), "BAD_OPTION"),
        (PruneOptions(signal="tailor"), "UNKNOWN_SIGNAL"),
        (PruneOptions(signal="auto"), "SIGNAL_NEEDS_DATA"),
        (PruneOptions(repair=("bn",)), "REPAIR_NEEDS_DATA"),
        (PruneOptions(latency=LatencyOptions(table=Path("t.json"), threads=0)), "BAD_OPTION"),
        (PruneOptions(granularity="weight", allocation="tailor"), "UNKNOWN_WEIGHT_ALLOCATION"),
        (PruneOptions(granularity="weight", repair=("bn",)), "REPAIR_NEEDS_DATA"),
    ],
)
def test_a_choice_that_means_nothing_is_refused_before_the_model_is_read(tmp_path, options, code):
    with pytest.raises(InputError) as caught:
        verbs.prune(tmp_path / "absent.pt", budget=make_budget(sparsity=0.5), options=options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("own", "code"),
    [
        (TrainingOptions(lr=-1.0), "BAD_OPTION"),
        (TrainingOptions(ema=1.0), "BAD_OPTION"),
        (TrainingOptions(optimizer="sgdd"), "UNKNOWN_OPTIMIZER"),
        (TrainingOptions(schedule="onecycle"), "UNKNOWN_SCHEDULE"),
    ],
)
def test_how_an_iterative_cut_trains_is_checked_with_its_other_options(own, code):
    with pytest.raises(InputError) as caught:
        check_trained(Iterative(), PruneOptions(method="iterative", signal="fisher", training=own))
    assert caught.value.code == code


def test_a_model_to_time_beside_is_read_before_anything_is_written(
    digits_checkpoint: Path, tmp_path: Path
) -> None:
    output = tmp_path / "slim.onnx"
    with pytest.raises(InputError) as caught:
        verbs.export(digits_checkpoint, output=output, against=tmp_path / "absent.pt")
    assert caught.value.code == "FILE_NOT_FOUND"
    assert not output.exists()


@pytest.mark.parametrize("name", ["absent.pt", "absent.onnx"])
def test_a_model_to_compare_with_is_read_before_any_image(
    name: str, digits_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_split(*_: object, **__: object) -> ImageSet:
        raise AssertionError

    monkeypatch.setitem(verbs.evaluate.__globals__, "load_split", load_split)
    with pytest.raises(InputError) as caught:
        verbs.evaluate(digits_checkpoint, data="digits", against=tmp_path / name)
    assert caught.value.code == "FILE_NOT_FOUND"
