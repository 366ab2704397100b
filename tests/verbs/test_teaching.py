"""Who teaches where nobody is named: what a model was pruned from, or the model itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import prunecli
from prunecli import verbs
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.checkpoint import save
from prunecli.errors import InputError
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions, LoadOptions, PruneOptions, TrainingOptions
from prunecli.report import Gates, to_json
from prunecli_cli.main import main
from tests.support.samples import VGG
from tests.support.training import GREY, make_net, same

NONE = Path("none")
QUICK = FinetuneOptions(epochs=1, limit=128, amp="no")
HALF = make_budget(flops=0.5)


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """Return a cut model beside its dense one."""
    shutil.copy(VGG, tmp_path / "dense.safetensors")
    path = tmp_path / "cut.pt"
    verbs.prune(tmp_path / "dense.safetensors", output=path, budget=HALF)
    return path


def tuned(model: Path, **choices):
    output = model.with_name(f"tuned{len(list(model.parent.iterdir()))}.pt")
    report = verbs.finetune(model, data="digits", output=output, options=QUICK, **choices)
    return report, prunecli.load(output)


# --- finetune ------------------------------------------------------------------------------------


def test_what_a_model_was_pruned_from_teaches_it_as_if_it_had_been_named(cut):
    report, model = tuned(cut)
    named, same_model = tuned(cut, teacher=cut.with_name("dense.safetensors"))
    assert same(model, same_model)
    assert report.teacher == named.teacher
    assert (report.taught_by.origin, named.taught_by.origin) == ("history", "named")
    assert report.taught_by.file.samefile(named.taught_by.file)


@pytest.mark.parametrize("choice", [{"prefix": "student"}, {"ignore": ("teacher.*",)}])
def test_the_original_is_read_again_as_it_was_when_it_was_pruned(choice, tmp_path):
    """No later command repeats what was said of the file, and the other model does not teach."""
    right = prunecli.load(VGG).state_dict()
    wrong = {name: torch.zeros_like(tensor) for name, tensor in right.items()}
    both = {f"student.{k}": v for k, v in right.items()} | {
        f"teacher.{k}": v for k, v in wrong.items()
    }
    torch.save(both, tmp_path / "both.pt")
    torch.save(right, tmp_path / "right.pt")
    options = LoadOptions(input_size=(8, 8), **choice)
    verbs.prune(tmp_path / "both.pt", output=tmp_path / "cut.pt", budget=HALF, load=options)
    report, model = tuned(tmp_path / "cut.pt")
    named, same_model = tuned(tmp_path / "cut.pt", teacher=tmp_path / "right.pt")
    assert (report.taught_by.origin, named.taught_by.origin) == ("history", "named")
    assert same(model, same_model)


def test_the_word_for_nobody_trains_without_a_teacher(cut):
    report, alone = tuned(cut, teacher=NONE)
    cut.with_name("dense.safetensors").unlink()
    lost, same_model = tuned(cut)
    assert same(alone, same_model)
    assert (report.taught_by, report.teacher, report.warnings) == (None, None, lost.warnings[1:])
    assert lost.warnings[0].startswith("trained without a teacher: dense.safetensors, which it ")
    assert not same(alone, tuned(make_dense_again(cut))[1])


def make_dense_again(cut: Path) -> Path:
    shutil.copy(VGG, cut.with_name("dense.safetensors"))
    return cut


def test_a_model_that_was_not_pruned_trains_alone_without_a_word(tmp_path):
    shutil.copy(VGG, tmp_path / "dense.safetensors")
    report, _ = tuned(tmp_path / "dense.safetensors")
    assert report.taught_by is None
    assert not any("teacher" in said for said in report.warnings)


def test_a_dense_file_that_was_exchanged_does_not_teach(cut, make_checkpoint):
    save(make_checkpoint("digits_vgg"), cut.with_name("dense.safetensors"))
    report, _ = tuned(cut)
    assert report.taught_by is None
    assert "or not the same" in report.warnings[0]


def test_a_pickle_that_a_history_names_is_not_run(cut, tmp_path):
    import dataclasses
    import hashlib

    evil = tmp_path / "evil.pt"
    torch.save(make_net(), evil)  # a pickled module, which takes code to read
    checkpoint = read(cut).checkpoint
    step = {
        **checkpoint.metadata["history"][-1],
        "input": evil.name,
        "place": evil.name,
        "bytes": evil.stat().st_size,
        "sha256": hashlib.sha256(evil.read_bytes()).hexdigest(),
    }
    metadata = {**checkpoint.metadata, "history": [step]}
    save(dataclasses.replace(checkpoint, metadata=metadata), tmp_path / "told.pt")
    report, _ = tuned(tmp_path / "told.pt", load=LoadOptions(allow_pickle=True))
    assert report.taught_by is None
    assert "cannot teach it" in report.warnings[0]


def test_the_screen_says_who_taught_and_how_to_go_without(cut, capsys):
    words = ["finetune", str(cut), "--data", "digits", "--epochs", "1", "--limit", "64"]
    assert main([*words, "--out", str(cut.with_name("t.pt"))]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert ", dense.safetensors (from the history of the model; --teacher none to go" in told
    assert f"--against {cut.with_name('dense.safetensors')}" in told


@pytest.mark.parametrize(
    "asked", [{"options": FinetuneOptions(alpha=0.5)}, {"gates": Gates(max_drop=0.1)}]
)
def test_what_needs_a_teacher_is_refused_before_the_training_where_none_is_found(
    cut, asked, monkeypatch
):
    cut.with_name("dense.safetensors").unlink()
    monkeypatch.setattr("prunecli.training.finetune", lambda *_, **__: pytest.fail("it trained"))
    with pytest.raises(InputError) as caught:
        verbs.finetune(cut, data="digits", output=cut.with_name("t.pt"), **asked)
    assert caught.value.code == "OPTION_WITHOUT_EFFECT"


# --- prune ---------------------------------------------------------------------------------------


def pruned(folder: Path, name: str, **own):
    own = {"epochs": 1, "amp": "no", **own}
    method = own.pop("method", "one-shot")
    output = folder / name
    report = verbs.prune(
        VGG,
        output=output,
        budget=HALF,
        data="digits",
        options=PruneOptions(
            method=method, signal="l1", limit=128, training=TrainingOptions(**own)
        ),
    )
    return report, prunecli.load(output)


@pytest.mark.parametrize("method", ["one-shot", "slimming"])
def test_the_model_itself_teaches_what_is_pruned_and_trained(tmp_path, method):
    report, model = pruned(tmp_path, "a.pt", method=method)
    named, same_model = pruned(tmp_path, "b.pt", method=method, teacher=VGG)
    alone, other = pruned(tmp_path, "c.pt", method=method, teacher=NONE)
    assert same(model, same_model)
    assert not same(model, other)
    assert to_json(report)["learning"]["taught_by"] == {"origin": "itself", "file": str(VGG)}
    assert named.learning.taught_by.origin == "named"
    assert alone.learning.taught_by is None


def test_from_python_a_module_teaches_what_it_is_pruned_to():
    model = make_net()
    arguments = {
        "flops": 0.5, "signal": "l1", "epochs": 1, "limit": 128, "amp": "no", "data": "digits",
        "input": GREY,
    }  # fmt: skip
    x = torch.zeros(2, 1, 8, 8)
    found = prunecli.prune(model, x, **arguments)
    named = prunecli.prune(model, x, teacher=model, **arguments)
    alone = prunecli.prune(model, x, teacher="none", **arguments)
    assert same(found.model, named.model)
    assert not same(found.model, alone.model)
    assert found.report.learning.taught_by.origin == "itself"
    assert alone.report.learning.taught_by is None


def test_one_epoch_is_enough_for_every_way_to_train(tmp_path):
    for method in ("one-shot", "bar"):
        report, model = pruned(tmp_path, f"{method}.pt", method=method, teacher=NONE)
        assert report.learning.epochs == 1
        assert report.cost.kept["flops"] <= 0.5
        held_out = evaluate_on_digits(model)
        assert 0 <= held_out <= 1


def evaluate_on_digits(model) -> float:
    from prunecli.data import load_split, open_source

    images = load_split(open_source("digits"), "held_out", input=GREY, limit=64)
    return evaluate(model, images, input=GREY).accuracy


@pytest.mark.parametrize("method", ["one-shot", "bar"])
def test_a_teacher_of_other_classes_is_refused_before_anything_is_trained(
    tmp_path, make_checkpoint, method, monkeypatch
):
    save(make_checkpoint("digits_vgg", num_classes=7), tmp_path / "seven.pt")
    monkeypatch.setattr("prunecli.pruning.road.select", lambda *_, **__: pytest.fail("it chose"))
    with pytest.raises(InputError) as caught:
        pruned(tmp_path, "x.pt", method=method, teacher=tmp_path / "seven.pt")
    assert caught.value.code == "TEACHER_MISMATCH"
    assert not (tmp_path / "x.pt").exists()


def test_epochs_without_images_are_refused_before_the_model_is_read(tmp_path):
    options = PruneOptions(training=TrainingOptions(epochs=2))
    with pytest.raises(InputError) as caught:
        verbs.prune(tmp_path / "absent.pt", budget=HALF, options=options)
    assert caught.value.code == "SIGNAL_NEEDS_DATA"


@pytest.mark.parametrize("choices", [{"epochs": 1}, {"method": "bar", "epochs": 1}])
def test_from_python_too_a_teacher_of_other_classes_is_refused_before_the_cut(choices, monkeypatch):
    monkeypatch.setattr("prunecli.pruning.road.select", lambda *_, **__: pytest.fail("it chose"))
    model = make_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        prunecli.prune(
            model, torch.zeros(2, 1, 8, 8), flops=0.5, data="digits", input=GREY,
            teacher=make_net(classes=7), **choices,
        )  # fmt: skip
    assert caught.value.code == "TEACHER_MISMATCH"
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
