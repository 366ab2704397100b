"""Options of different roads that meet: what cannot go together is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import prunecli
from prunecli import verbs
from prunecli.budget import make_budget, parse_sweep
from prunecli.errors import InputError
from prunecli.options import PruneOptions, TrainingOptions
from prunecli.verbs.suggesting import next_command
from prunecli_cli.main import main
from prunecli_sample_models import make

VGG = make.FOLDER / "digits_vgg.safetensors"
RESNET = make.FOLDER / "digits_resnet.safetensors"


def prune(model, target, **options):
    data, flops = options.pop("data", "digits"), options.pop("flops", 0.5)
    return verbs.prune(
        model,
        output=target,
        budget=None if flops is None else make_budget(flops=flops),
        options=PruneOptions(**{"limit": 64, **options}),
        data=data,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"allocation": "inverse-importance"},
        {"dead": True},
        {"signal": "auto"},
        {"signal": "activation/taylor/sqr-sum/latency-removed"},
        {"granularity": "2:4", "flops": None},
    ],
)
def test_an_iterative_cut_refuses_what_belongs_to_others_and_leaves_nothing(tmp_path, options):
    with pytest.raises(InputError) as caught:
        prune(RESNET, tmp_path / "out.pt", method="iterative", **options)
    assert caught.value.code == "BAD_OPTION"
    assert list(tmp_path.iterdir()) == []


def test_an_iterative_cut_says_that_it_fills_the_zeros_of_a_sparse_network(tmp_path):
    sparse = verbs.prune(
        VGG,
        output=tmp_path / "sparse.pt",
        budget=make_budget(sparsity=0.5),
        options=PruneOptions(granularity="weight"),
    )
    own = TrainingOptions(updates=1, remove_per_step=200)
    report = prune(sparse.output, tmp_path / "out.pt", method="iterative", training=own)
    assert any("dense after the training" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    "options",
    [
        {"signal": "taylor"},
        {"signal": "taylor", "granularity": "weight"},
        {"signal": "auto"},
        {"repair": ("bn",)},
    ],
)
def test_labels_that_no_output_stands_for_are_refused(tmp_path, options):
    from PIL import Image

    for label in range(12):
        folder = tmp_path / "data" / f"{label:02}"
        folder.mkdir(parents=True)
        for number in range(6):
            Image.new("L", (8, 8), 20 * label + number).save(folder / f"{number}.png")
    budget = make_budget(sparsity=0.5) if "granularity" in options else make_budget(flops=0.5)
    with pytest.raises(InputError) as caught:
        verbs.prune(
            VGG,
            output=tmp_path / "out.pt",
            budget=budget,
            options=PruneOptions(limit=64, **options),
            data=str(tmp_path / "data"),
        )
    assert caught.value.code == "CLASS_COUNT_MISMATCH"
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("options", [{"signal": "taylor"}, {"repair": ["bn"]}])
def test_from_python_wrong_labels_are_named_too(options):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    images = torch.randn(8, 3, 8, 8)
    with pytest.raises(InputError) as caught:
        prunecli.prune(
            model, images[:1], flops=0.6, batches=lambda: [(images, torch.arange(8))], **options
        )
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


@pytest.mark.parametrize("option", ["only", "exclude"])
def test_a_pattern_that_matches_nothing_is_named_with_dead_channels_too(tmp_path, option):
    with pytest.raises(InputError) as caught:
        prune(VGG, tmp_path / "out.pt", dead=True, **{option: ("typo",)})
    assert caught.value.code == "NO_SUCH_LAYER"


@pytest.mark.parametrize(
    "words",
    [
        "--importance nonsense",
        "--importance energy",
        "--candidates l2",
        "--dead-threshold 0.1",
        "--threads 2",
    ],
)
def test_a_sweep_takes_no_option_that_it_would_ignore(words, capsys):
    sweep = ["prune", str(VGG), "--sweep", "flops=0.6:0.6:0.3", "--data", "digits"]
    code = main([*sweep, "--limit", "64", *words.split()])
    capsys.readouterr()
    assert code == 2


def test_the_next_command_names_the_model_once_and_its_importance_where_it_counts():
    sweep = parse_sweep("flops=0.6:0.6:0.1")
    report = verbs.sweep(
        VGG,
        sweep=sweep,
        signals=("l1",),
        allocations=("proportional-importance",),
        options=PruneOptions(limit=64, importance="energy"),
        data="digits",
    )
    typed = f"prunecli prune ./{VGG.name} --sweep flops=0.6:0.6:0.1 --importance energy"
    command = next_command(typed, report, model=Path(VGG.name), importance="energy")
    assert command.count(VGG.name) == 1
    assert command.endswith("--allocation proportional-importance --importance energy")
