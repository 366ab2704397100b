"""What is recorded while a network trains, and the records of several runs beside each other."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunecli import verbs
from prunecli.architectures.reference import InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read, state_of
from prunecli.checkpoint import save
from prunecli.data import load_split, open_source
from prunecli.data.pixels import normalise
from prunecli.errors import InputError, InterruptedRunError
from prunecli.learnability import agreement, read_record
from prunecli.options import AnalyzeOptions, FinetuneOptions
from prunecli.training import finetune as train
from prunecli_cli.main import main
from prunecli_sample_models import make

MODEL = make.FOLDER / "digits_vgg.safetensors"


def options(**changes):
    usual = {"epochs": 2, "limit": 300, "batch_size": 64, "lr": 1e-2, "amp": "no"}
    return FinetuneOptions(**{**usual, **changes})


def finetuned(folder, name="out", *, model=MODEL, **changes):
    resume, progress = changes.pop("resume", False), changes.pop("progress", lambda _: None)
    return verbs.finetune(
        model,
        data="digits",
        output=folder / f"{name}.pt",
        record=folder / f"{name}.parquet",
        options=options(**changes),
        resume=resume,
        progress=progress,
    )


def test_a_record_says_which_images_the_network_of_an_epoch_has_right(tmp_path):
    report = finetuned(tmp_path, epochs=1)
    assert report.record == tmp_path / "out.parquet"
    record = read_record(report.record)
    checkpoint = read(report.output).checkpoint
    images = load_split(open_source("digits"), "train", input=checkpoint.input, limit=300)
    with torch.no_grad():
        pixels = normalise(images.images, checkpoint.input)
        right = instantiate(checkpoint)(pixels).argmax(1) == images.labels
    assert record.hits[:, 0].tolist() == right.tolist()
    assert record.paths == images.paths
    assert record.scored == "evaluation"
    assert record.facts["epochs"] == 1
    assert "digits_vgg" in record.facts["network"]


def test_a_run_that_was_stopped_records_what_a_straight_one_does(tmp_path):
    finetuned(tmp_path, "straight", epochs=3)

    def stop(step):
        if step.stage == "train" and step.facts.get("epoch") == "3/3":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        finetuned(tmp_path, "stopped", epochs=3, progress=stop)
    assert not (tmp_path / "stopped.parquet").exists()
    finetuned(tmp_path, "stopped", epochs=3, resume=True)
    one, two = (read_record(tmp_path / f"{name}.parquet") for name in ("straight", "stopped"))
    assert one.hits.shape[1] == 3
    assert np.array_equal(one.hits, two.hits)


def test_without_a_record_nothing_is_looked_at_after_an_epoch(tmp_path):
    stages = set()
    verbs.finetune(
        MODEL,
        data="digits",
        output=tmp_path / "out.pt",
        options=options(epochs=1),
        progress=lambda step: stages.add(step.stage),
    )
    assert "record what is learned" not in stages
    assert not list(tmp_path.glob("*.parquet"))


def test_a_record_that_is_there_is_kept(tmp_path):
    (tmp_path / "out.parquet").write_text("mine")
    with pytest.raises(InputError) as caught:
        finetuned(tmp_path)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert (tmp_path / "out.parquet").read_text() == "mine"


def test_records_of_several_runs_are_compared(tmp_path, capsys, monkeypatch):
    untrained = tmp_path / "new.pt"
    checkpoint = read(MODEL).checkpoint
    network = instantiate(checkpoint)
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    save(replace(checkpoint, tensors=state_of(network)), untrained)
    paths = []
    for seed in (0, 1):
        report = finetuned(tmp_path, f"run{seed}", model=untrained, seed=seed, epochs=8, lr=0.05)
        paths.append(report.record)
    found = verbs.analyze(options=AnalyzeOptions(learnability=tuple(paths))).learnability
    assert [run.name for run in found.runs] == ["run0", "run1"]
    assert all(run.epochs == 8 for run in found.runs)
    (pair,) = found.pairs
    assert pair.pearson > 0.3
    assert 0 <= pair.overlap <= 1
    words = [word for path in paths for word in ("--learnability", str(path))]
    assert main(["analyze", "digits", *words, "--repeats", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["learnability"]["pairs"][0]["pearson"] == pytest.approx(pair.pearson)
    assert main(["analyze", "digits", *words, "--repeats", "2"]) == 0
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "run0, run1" in text
    tables = [line for line in text.splitlines() if not line.startswith("warning")]
    assert max(map(len, tables)) <= 80
    monkeypatch.chdir(tmp_path)  # where a newest output lies, which nobody asked about
    assert main(["analyze", *words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["model"], data["dataset"]) == (None, None)
    assert data["learnability"]["pairs"][0]["pearson"] == pytest.approx(pair.pearson)


def test_a_score_goes_by_the_name_of_its_variant(tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ("analyze", "digits", "--variant", "auls", "--limit", "60", "--repeats", "2")
    assert main([*words, "--report", str(page)]) == 0
    assert re.search(r"^AULS +\d", capsys.readouterr().out, re.MULTILINE)
    assert "AULS, overlap of classes" in page.read_text(encoding="utf-8")


def perceptron(hidden, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def convolutions(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def test_networks_agree_about_hard_digits_and_those_of_one_family_most():
    """N3 of the notes: 30 epochs of four networks, the same family above .85, others above .3."""
    source = open_source("digits")
    networks = {
        "small": perceptron(16, 0),
        "large": perceptron(128, 0),
        "again": perceptron(128, 1),
        "convolutions": convolutions(0),
    }
    records = {
        name: train(
            network,
            source,
            input=InputSpec(1, 8, 8, (0.305,), (0.376,)),
            options=options(
                epochs=30, limit=None, lr=0.05, schedule="constant", weight_decay=0.0,
                augment="none", record_learnability=True, seed=0,
            ),
        ).record
        for name, network in networks.items()
    }  # fmt: skip
    same = agreement(records["large"], records["again"]).pearson
    print({name: agreement(records["large"], record).pearson for name, record in records.items()})
    assert same > 0.85
    assert agreement(records["small"], records["large"]).pearson > 0.3
    assert agreement(records["convolutions"], records["large"]).pearson > 0.3
    assert agreement(records["convolutions"], records["large"]).pearson < same


def test_a_file_that_is_no_record_is_an_error_with_the_next_step(tmp_path, capsys):
    (tmp_path / "a.parquet").write_text("no")
    assert main(["analyze", "digits", "--learnability", str(tmp_path / "a.parquet")]) == 4
    assert "--record-learnability" in capsys.readouterr().err
