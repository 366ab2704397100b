"""Training by learnability: what is drawn, how much it counts, and what is refused."""

from __future__ import annotations

import json
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunecli import data, verbs
from prunecli.data import MemoryImageSet, StreamedImageSet
from prunecli.errors import InputError, InterruptedRunError, PruneError
from prunecli.learnability import (
    Record,
    importance_weights,
    known_images,
    pace,
    read_record,
    write_record,
)
from prunecli.options import FinetuneOptions
from prunecli.training import distillation_loss, finetune
from prunecli.training.loop import drawn_batches, epoch_batches
from prunecli.training.losses import Objective
from prunecli.training.sampling import make_sampling, with_positions
from prunecli_cli.main import main
from prunecli_sample_models import make
from tests.support.learnability import net, quick
from tests.support.training import GREY
from tests.support.two_processes import in_two_processes

MODEL = make.FOLDER / "digits_vgg.safetensors"
CLASSES = tuple("abc")


def image_set(labels, *, first=0):
    labels = torch.as_tensor(labels)
    pixels = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(len(labels))
    paths = tuple(f"#{first + at}" for at in range(len(labels)))
    return MemoryImageSet(labels, CLASSES, paths, "train", (), pixels)


def written(path, easiness, labels, *, epochs=10, first=0):
    """Write a record whose images have given learnabilities, in steps of 1 / epochs."""
    right = np.rint(np.asarray(easiness) * epochs).astype(int)
    hits = np.arange(epochs)[None, :] >= epochs - right[:, None]
    names = tuple(f"#{first + at}" for at in range(len(right)))
    write_record(Record(names, np.asarray(labels), CLASSES, hits, "evaluation", {}), path)
    return path


LABELS = np.arange(60) % 3
EASINESS = np.random.default_rng(0).permutation(60) // 6 / 10


@pytest.fixture
def record(tmp_path):
    return written(tmp_path / "run.parquet", EASINESS, LABELS)


def drawn(sampling, epoch, seed=0):
    return sampling.draw(epoch, torch.Generator().manual_seed(seed))


# --- what is drawn --------------------------------------------------------------------------------


def test_a_curriculum_goes_through_the_easiest_of_every_class_as_often_as_the_steps_take(record):
    options = FinetuneOptions(epochs=10, curriculum=(record,))
    sampling = make_sampling(options, image_set(LABELS))
    for epoch in range(10):
        rows, counts = np.unique(drawn(sampling, epoch).numpy(), return_counts=True)
        assert counts.sum() == 60
        assert counts.max() - counts.min() <= 1
        share = min(1.0, 0.3 + 0.7 * epoch / 5)  # the pace, by hand
        for label in range(3):
            members = np.flatnonzero(label == LABELS)
            inside = np.isin(members, rows)
            assert inside.sum() == round(share * 20)
            assert EASINESS[members[inside]].min() >= EASINESS[members[~inside]].max(initial=0)
    assert sampling.report.shares == tuple(pace(epoch, 10) for epoch in range(10))
    assert sampling.weights is None


def test_images_that_no_record_holds_enter_a_curriculum_last_and_are_counted(tmp_path):
    part = written(tmp_path / "run.parquet", np.zeros(45), LABELS[:45])
    options = FinetuneOptions(epochs=10, curriculum=(part,))
    sampling = make_sampling(options, image_set(LABELS))
    assert sampling.warnings == ("15 of 60 images are in no record: they enter last",)
    assert sampling.report.unknown == 15
    assert drawn(sampling, 0).max() < 45
    assert set(drawn(sampling, 5).tolist()) == set(range(60))


def test_importance_weights_leave_the_expected_gradient_as_it_is(record):
    torch.manual_seed(0)
    images = image_set(LABELS)
    sampling = make_sampling(FinetuneOptions(importance_sampling=(record,)), images)
    chances, _ = importance_weights(EASINESS)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    pixels = torch.rand(60, 1, 8, 8, dtype=torch.float64)
    teacher = torch.randn(60, 3, dtype=torch.float64)
    objective = Objective(temperature=3.0, alpha=0.6, label_smoothing=0.1)

    def gradient(rows, weights, taught):
        model.zero_grad()
        objective(model(pixels[rows]), (), images.labels[rows], taught, weights).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    for taught in (None, teacher):
        plain = gradient(torch.arange(60), None, taught)
        expected = torch.zeros_like(plain)
        for at in range(60):  # every draw with its chance
            rows = torch.tensor([at])
            teaching = None if taught is None else taught[rows]
            one = gradient(rows, sampling.weights_of(rows).double(), teaching)
            expected += chances[at] * one
        torch.testing.assert_close(expected, plain, rtol=1e-6, atol=1e-9)


def test_hard_images_are_drawn_as_often_as_their_chance_says(record):
    sampling = make_sampling(FinetuneOptions(importance_sampling=(record,)), image_set(LABELS))
    chances, weights = importance_weights(EASINESS)
    counts = np.zeros(60)
    for seed in range(400):
        counts += np.bincount(drawn(sampling, 0, seed).numpy(), minlength=60)
    errors = (counts - 24_000 * chances) / np.sqrt(24_000 * chances * (1 - chances))
    assert abs(errors).max() < 4.5
    assert sampling.report.weights == pytest.approx((weights.min(), weights.max()))


def test_images_that_no_record_holds_are_drawn_like_the_mean_one(tmp_path):
    part = written(tmp_path / "run.parquet", EASINESS[:45], LABELS[:45])
    sampling = make_sampling(FinetuneOptions(importance_sampling=(part,)), image_set(LABELS))
    filled = np.append(EASINESS[:45], [EASINESS[:45].mean()] * 15)
    assert sampling.weights.numpy() == pytest.approx(importance_weights(filled)[1], rel=1e-5)
    assert "15 of 60 images are in no record" in sampling.warnings[0]


def test_several_records_count_by_their_mean(tmp_path):
    files = (
        written(tmp_path / "a.parquet", EASINESS, LABELS),
        written(tmp_path / "b.parquet", 1 - EASINESS[:30], LABELS[:30]),
    )
    sampling = make_sampling(FinetuneOptions(importance_sampling=files), image_set(LABELS))
    mean = np.append(np.full(30, 0.5), EASINESS[30:])
    assert sampling.weights.numpy() == pytest.approx(importance_weights(mean)[1], rel=1e-5)


@pytest.mark.parametrize("option", ["curriculum", "importance_sampling"])
@pytest.mark.parametrize("processes", [1, 3])
def test_processes_share_what_is_drawn_and_take_the_steps_they_would_without(
    record, option, processes
):
    images = image_set(LABELS)
    options = FinetuneOptions(epochs=4, batch_size=9, **{option: (record,)})
    sampling = make_sampling(options, images)

    def batches(rank, sampled):
        accelerator = types.SimpleNamespace(process_index=rank, num_processes=processes)
        recipe = types.SimpleNamespace(
            options=options, images=images, accelerator=accelerator, sampling=sampled
        )
        return drawn_batches(recipe, 1)

    for rank in range(processes):
        with_it, without = batches(rank, sampling), batches(rank, None)
        assert [len(batch) for batch in with_it] == [len(batch) for batch in without]
    together = torch.cat([torch.cat(batches(rank, sampling)) for rank in range(processes)])
    places = torch.cat(
        [torch.cat(epoch_batches(60, 9, seed=0, epoch=1, shard=(rank, processes)))
         for rank in range(processes)]
    )  # fmt: skip
    again = torch.cat([torch.cat(batches(rank, sampling)) for rank in range(processes)])
    assert torch.equal(together, again)
    assert len(set(places.tolist())) == len(places)  # no place of the epoch is filled twice


def test_positions_go_with_their_images_where_some_cannot_be_read():
    broken = {0, 1, 2, 5}

    def decode(position):
        return None if position in broken else torch.full((1, 8, 8), position, dtype=torch.uint8)

    images = StreamedImageSet(
        torch.arange(9) % 3, CLASSES, tuple(f"{at}.png" for at in range(9)), "train", (), decode
    )
    batches = torch.tensor([3, 5, 4, 0, 1, 2, 8, 7, 6]).split(3)
    found = list(with_positions(images, batches))
    assert [positions.tolist() for _, positions, _, _ in found] == [[3, 4], [8, 7, 6]]
    assert [at for at, *_ in found] == [0, 2]
    for _, positions, pixels, labels in found:
        assert torch.equal(pixels[:, 0, 0, 0].long(), positions)
        assert torch.equal(labels, images.labels[positions])


# --- losses with weights --------------------------------------------------------------------------


@pytest.mark.parametrize("taught", [False, True])
def test_a_weighted_loss_is_the_mean_of_weighted_losses_of_single_images(taught):
    torch.manual_seed(0)
    logits, extra, teacher = torch.randn(3, 5, 4).unbind()
    labels, weights = torch.tensor([0, 1, 2, 3, 0]), torch.rand(5)
    objective = Objective(temperature=4.0, alpha=0.9, label_smoothing=0.1)
    given = teacher if taught else None
    single = [
        objective(
            logits[at : at + 1], (extra[at : at + 1],), labels[at : at + 1],
            None if given is None else given[at : at + 1],
        )
        for at in range(5)
    ]  # fmt: skip
    expected = (weights * torch.stack(single)).mean()
    torch.testing.assert_close(objective(logits, (extra,), labels, given, weights), expected)
    plain = objective(logits, (extra,), labels, given)
    torch.testing.assert_close(objective(logits, (extra,), labels, given, torch.ones(5)), plain)
    if taught:
        loss = distillation_loss(
            logits, teacher, labels, temperature=4.0, alpha=0.9, label_smoothing=0.1
        )
        torch.testing.assert_close(objective(logits, (), labels, teacher), loss)


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return data.open_source("digits")


@pytest.fixture(scope="module")
def learned(digits, tmp_path_factory):
    options = FinetuneOptions(epochs=4, batch_size=32, limit=300, lr=0.05, record_learnability=True)
    found = finetune(net(), digits, input=GREY, options=options).record
    path = tmp_path_factory.mktemp("records") / "run.parquet"
    write_record(found, path)
    return path


def same(one, two):
    return all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))


@pytest.mark.parametrize("option", ["curriculum", "importance_sampling"])
def test_a_run_by_learnability_takes_equal_steps_and_resumes_exactly(
    digits, learned, tmp_path, option
):
    options = quick(**{option: (learned,)})
    plain = finetune(net(), digits, input=GREY, options=quick())
    straight = finetune(net(), digits, input=GREY, options=options, teacher=net(1))

    def stop(step):
        if step.stage == "train" and step.facts.get("epoch") == "2/3":
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError):
        finetune(
            net(), digits, input=GREY, options=options, teacher=net(1), run_dir=tmp_path / "run",
            progress=stop,
        )  # fmt: skip
    resumed = finetune(
        net(), digits, input=GREY, options=options, teacher=net(1), run_dir=tmp_path / "run",
        resume=True,
    )  # fmt: skip
    assert same(resumed.model, straight.model)
    assert not same(plain.model, straight.model)
    rates = [[epoch.learning_rate for epoch in run.epochs] for run in (plain, straight)]
    assert rates[0] == rates[1]
    assert straight.sampling.kind.split()[0] == option.split("_")[0]


def test_a_run_does_not_go_on_with_what_another_record_says(digits, learned, tmp_path):
    finetune(net(), digits, input=GREY, options=quick(epochs=1, curriculum=(learned,)),
             run_dir=tmp_path)  # fmt: skip
    record = read_record(learned)
    other = tmp_path / "other.parquet"
    write_record(replace(record, hits=~record.hits), other)
    with pytest.raises(InputError, match="curriculum was") as caught:
        finetune(net(), digits, input=GREY, options=quick(epochs=1, curriculum=(other,)),
                 run_dir=tmp_path, resume=True)  # fmt: skip
    assert caught.value.code == "RESUME_MISMATCH"


def test_importance_sampling_trains_on_the_same_mean_loss(digits, learned):
    """Without steps that change anything, the logged loss estimates that of the plain run."""
    still = {"lr": 1e-12, "epochs": 1, "batch_size": 300, "momentum": 0.0}
    plain = finetune(net(), digits, input=GREY, options=quick(**still))
    options = quick(importance_sampling=(learned,), **still)
    found = finetune(net(), digits, input=GREY, options=options)
    assert found.epochs[0].train_loss == pytest.approx(plain.epochs[0].train_loss, rel=0.15)


# --- recording as images are trained on -----------------------------------------------------------


def test_hits_taken_from_training_are_those_of_its_own_forward_passes(digits, monkeypatch):
    from prunecli.training import loop

    step, seen = loop.train_step, {}

    def watched(run, images, labels, weights=None):
        loss, right = step(run, images, labels, weights)
        for image, hit in zip(images, right.tolist(), strict=True):
            seen[run.epoch, image.numpy().tobytes()] = hit
        return loss, right

    monkeypatch.setattr(loop, "train_step", watched)
    options = quick(
        epochs=2, augment="none", record_learnability=True, record_learnability_mode="training"
    )
    record = finetune(net(), digits, input=GREY, options=options).record
    images = data.load_split(digits, "train", input=GREY, limit=300)
    assert record.scored == "training"
    assert record.hits.shape == (300, 2)
    for epoch in range(2):
        expected = [seen[epoch, image.numpy().tobytes()] for image in images.images]
        assert record.hits[:, epoch].tolist() == expected


def test_images_that_an_epoch_leaves_out_are_looked_at_behind_it(digits):
    options = quick(
        limit=289, batch_size=32, epochs=1, record_learnability=True,
        record_learnability_mode="training",
    )  # fmt: skip
    stages = []
    found = finetune(
        net(), digits, input=GREY, options=options,
        progress=lambda step: stages.append((step.stage, step.done)),
    ).record  # fmt: skip
    assert ("record what is learned", 1) in stages  # a batch of one image is not trained on
    assert found.hits.shape == (289, 1)


def test_a_run_that_records_in_training_resumes_in_the_middle_of_an_epoch(
    digits, tmp_path, monkeypatch
):
    from prunecli.training import loop

    options = quick(record_learnability=True, record_learnability_mode="training")
    straight = finetune(net(), digits, input=GREY, options=options).record
    step, taken = loop.train_step, []

    def stopping(run, *batch):
        if len(taken) == 14:
            run.between_steps = True
            raise KeyboardInterrupt
        taken.append(run.step)
        return step(run, *batch)

    monkeypatch.setattr(loop, "train_step", stopping)
    with pytest.raises(InterruptedRunError):
        finetune(net(), digits, input=GREY, options=options, run_dir=tmp_path)
    monkeypatch.setattr(loop, "train_step", step)
    again = finetune(net(), digits, input=GREY, options=options, run_dir=tmp_path, resume=True)
    assert np.array_equal(again.record.hits, straight.hits)


PARALLEL = """
from prunecli import data
from prunecli.training import finetune
from tests.support.learnability import net, quick
from tests.support.training import GREY

record = folder / "learned.parquet"
recording = {"record_learnability": True, "record_learnability_mode": "training"}
choices = [recording, {"curriculum": (record,)},
           {"importance_sampling": (record,)}]
results = [finetune(net(), data.open_source("digits"), input=GREY, options=quick(**each))
         for each in choices]
weights = [[p.detach() for p in each.model.parameters()] for each in results]
hits = torch.from_numpy(results[0].record.hits)
found = (weights, hits)
"""


@pytest.mark.slow
def test_two_processes_train_by_learnability_and_record_together(digits, learned, tmp_path):
    (tmp_path / "learned.parquet").write_bytes(learned.read_bytes())
    (one, hits), (two, same_hits) = in_two_processes(PARALLEL, tmp_path)
    for first, second in zip(one, two, strict=True):
        assert all(map(torch.equal, first, second))
    assert torch.equal(hits, same_hits)
    assert hits.shape == (300, 3)
    assert hits[:, -1].float().mean() > 0.5


# --- records that go on ---------------------------------------------------------------------------


def recorded(folder, name, model=MODEL, *, onward=False, **changes):
    return verbs.finetune(
        model,
        data="digits",
        output=folder / f"{name}.pt",
        record=folder / "run.parquet",
        continue_record=onward,
        options=quick(**{"lr": 0.01, "epochs": 2, **changes}),
    )


def test_a_record_goes_on_with_the_epochs_of_the_next_run(tmp_path):
    recorded(tmp_path, "first")
    first = read_record(tmp_path / "run.parquet")
    recorded(tmp_path, "second", tmp_path / "first.pt", onward=True, epochs=1)
    both = read_record(tmp_path / "run.parquet")
    assert both.hits.shape[1] == 3
    assert np.array_equal(both.hits[:, :2], first.hits)
    assert both.paths == first.paths
    (next_run,) = both.facts["continued"]
    assert next_run["epochs"] == 1
    with pytest.raises(InputError, match="in it already") as caught:
        recorded(tmp_path, "third", tmp_path / "first.pt", onward=True, epochs=1)
    assert caught.value.code == "RECORD_MISMATCH"
    assert not (tmp_path / "third.pt").exists()


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        ("digits_vgg", {"seed": 1}, "images are not trained on"),
        ("digits_resnet", {}, "its network is"),
        ("digits_vgg", {"record_learnability_mode": "training"}, "its way of looking"),
    ],
)
def test_a_record_does_not_go_on_with_other_images_or_another_network(
    tmp_path, model, changes, said
):
    recorded(tmp_path, "first")
    before = (tmp_path / "run.parquet").read_bytes()
    with pytest.raises(InputError, match=said) as caught:
        recorded(
            tmp_path, "next", make.FOLDER / f"{model}.safetensors", onward=True, epochs=1, **changes
        )
    assert caught.value.code == "RECORD_MISMATCH"
    assert (tmp_path / "run.parquet").read_bytes() == before
    assert not (tmp_path / "next.pt").exists()


# --- bad input ------------------------------------------------------------------------------------


def refused(**changes):
    with pytest.raises(PruneError) as caught:
        make_sampling(FinetuneOptions(**changes), image_set(LABELS))
    return caught.value


@pytest.mark.parametrize("option", ["curriculum", "importance_sampling"])
def test_a_record_of_other_data_is_refused(tmp_path, option):
    far = written(tmp_path / "far.parquet", EASINESS, LABELS, first=1000)
    empty = written(tmp_path / "empty.parquet", np.zeros(0), np.zeros(0, np.int64))
    turned = written(tmp_path / "turned.parquet", EASINESS, (LABELS + 1) % 3)
    (tmp_path / "text.parquet").write_text("no")
    codes = {far: "NO_COMMON_IMAGES", empty: "NO_RECORD", turned: "OTHER_LABELS",
             tmp_path / "text.parquet": "NO_RECORD", tmp_path / "none": "NO_RECORD"}  # fmt: skip
    assert {path: refused(**{option: (path,)}).code for path in codes} == codes


def test_a_few_images_in_another_class_are_a_warning(tmp_path):
    labels = LABELS.copy()
    labels[:5] = (labels[:5] + 1) % 3
    path = written(tmp_path / "run.parquet", EASINESS, labels)
    found = make_sampling(FinetuneOptions(curriculum=(path,)), image_set(LABELS))
    assert found.warnings == (f"{path}: 5 images are in another class than they were then",)


def test_two_ways_to_choose_images_exclude_each_other(record):
    assert refused(curriculum=(record,), importance_sampling=(record,)).code == "BAD_OPTION"
    in_training = {"record_learnability": True, "record_learnability_mode": "training"}
    assert "pass of their own" in refused(curriculum=(record,), **in_training).hint
    with pytest.raises(InputError, match="no way to record"):
        finetune(net(), data.open_source("digits"), input=GREY,
                 options=quick(record_learnability_mode="often"))  # fmt: skip


def test_the_command_line_says_what_was_trained_on(learned, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["finetune", str(MODEL), "--data", "digits", "--limit", "300", "--epochs", "2"]
    path = str(learned)
    assert main([*words, "--curriculum", path, "--importance-sampling", path]) == 2
    assert "give one of the two" in capsys.readouterr().err
    assert main([*words, "--continue-record"]) == 2
    assert "--record-learnability" in capsys.readouterr().err
    assert main([*words, "--curriculum", str(tmp_path / "none"), "-o", "x.pt"]) == 2
    assert not list(tmp_path.glob("x*"))
    capsys.readouterr()
    assert main([*words, "--curriculum", path, "-o", "a.pt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["data"]["sampling"]
    assert found["shares"] == [0.3, 1.0]
    assert main([*words, "--importance-sampling", path, "-o", "b.pt"]) == 0
    assert "with replacement, weights" in capsys.readouterr().err


def test_the_command_line_writes_the_hardest_of_every_class(learned, tmp_path, capsys):
    target = tmp_path / "hard.txt"
    words = ["analyze", "digits", "--subset-rule", "hardest", "--write-subset", str(target),
             "--per-class", "20", "--repeats", "2"]  # fmt: skip
    assert main(words) == 2
    assert "--learnability" in capsys.readouterr().err
    assert not target.exists()
    assert main([*words, "--learnability", str(learned), "--json"]) == 0
    subset = json.loads(capsys.readouterr().out)["data"]["dataset"]["subset"]
    assert subset["images"] == 200
    assert subset["learnability"]["unknown"] == 200  # most images are in no record, none is easy
    record, kept = read_record(learned), target.read_text().splitlines()
    assert len(kept) == 200
    assert not {line.split("\t")[0] for line in kept} & set(record.paths)


def test_an_image_is_known_by_its_place_however_the_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hits = np.array([[True, True], [False, True]])
    near = Record(
        ("images/a.png", "images/b.png"), np.array([0, 1]), CLASSES, hits, "evaluation", {}
    )
    write_record(near, tmp_path / "run.parquet")
    far = tuple(str(tmp_path / "images" / name) for name in ("c.png", "b.png", "a.png"))
    found = known_images([tmp_path / "run.parquet"], far, np.array([2, 1, 0]), CLASSES)
    assert np.isnan(found.easiness[0])
    assert found.easiness[1:].tolist() == [0.5, 1.0]
    assert (found.unknown, found.mean) == (1, 0.75)
