"""The parts of training, each against an oracle of its own."""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.images import evaluate, tally_logits
from prunecli.evaluation.outputs import class_logits
from prunecli.lifetime.interrupts import held_interrupts
from prunecli.options import FinetuneOptions
from prunecli.training import (
    AUGMENTATIONS,
    OPTIMIZERS,
    SCHEDULES,
    devices,
    distillation_loss,
)
from prunecli.training.augment import (
    Augmentation,
    Setting,
    augmentation_for,
    make_augmentation,
)
from prunecli.training.average import ExponentialAverage
from prunecli.training.devices import PRECISIONS, make_accelerator, precision_of
from prunecli.training.loop import derive_seed, epoch_batches
from prunecli.training.losses import Objective
from prunecli.training.optimizers import build_optimizer, parameter_groups

RGB = InputSpec(
    channels=3, height=32, width=32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int = 16, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(256, (count, channels, size, size), generator=seeded(), dtype=torch.uint8)


# losses


def test_distillation_gives_its_known_answer():
    student = torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[1.5, 1.2, 0.8]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0])
    loss = distillation_loss(student, teacher, labels, temperature=2, alpha=0.7)
    assert loss.item() == pytest.approx(0.1869890, abs=1e-7)
    soft = distillation_loss(student, teacher, labels, temperature=2, alpha=1.0)
    assert soft.item() == pytest.approx(0.0681120, abs=1e-7)
    hard = distillation_loss(student, teacher, labels, temperature=2, alpha=0.0)
    assert hard.item() == pytest.approx(0.4643688, abs=1e-7)
    soft.backward()
    expected = torch.tensor([[0.182442, -0.087502, -0.094940]], dtype=torch.float64)
    torch.testing.assert_close(student.grad, expected, atol=1e-6, rtol=0)
    assert teacher.grad is None


def test_distillation_is_a_mean_over_images_not_over_classes():
    student, teacher = torch.randn(2, 7, generator=seeded(1)), torch.randn(2, 7)
    labels = torch.tensor([3, 4])
    both = distillation_loss(student, teacher, labels, temperature=4, alpha=0.9)
    each = [
        distillation_loss(
            student[i, None], teacher[i, None], labels[i, None], temperature=4, alpha=0.9
        )
        for i in range(2)
    ]
    torch.testing.assert_close(both, sum(each) / 2)


class Outputs(NamedTuple):
    logits: torch.Tensor
    aux_logits2: torch.Tensor | None
    aux_logits1: torch.Tensor | None


class Wrapped:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


MAIN, AUX = torch.zeros(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("output", "auxiliary"),
    [
        (MAIN, 0),
        (MAIN.half(), 0),
        ((MAIN, AUX), 1),
        ((MAIN, torch.ones(2, 8)), 0),
        (Outputs(MAIN, AUX, AUX), 2),
        (Outputs(MAIN, None, None), 0),
        (Wrapped(MAIN), 0),
        ({"logits": MAIN, "hidden": AUX}, 0),
        ({"out": MAIN, "aux": AUX}, 1),
    ],
)
def test_class_scores_are_found_in_any_kind_of_output(output, auxiliary):
    logits, others = class_logits(output)
    assert torch.equal(logits, MAIN)
    assert logits.dtype == torch.float32
    assert len(others) == auxiliary
    assert all(torch.equal(other, AUX) for other in others)


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4, 4), {"boxes": MAIN}, "text", ()])
def test_an_output_without_class_scores_is_refused(output):
    with pytest.raises(InputError) as caught:
        class_logits(output)
    assert caught.value.code == "NO_LOGITS"


def test_auxiliary_classifiers_count_for_two_fifths():
    objective = Objective(temperature=4, alpha=0.9, label_smoothing=0.1)
    logits, extra = torch.randn(4, 5, generator=seeded()), torch.randn(4, 5, generator=seeded(1))
    labels = torch.tensor([0, 1, 2, 3])
    entropy = nn.CrossEntropyLoss(label_smoothing=0.1)
    expected = entropy(logits, labels) + 0.4 * entropy(extra, labels)
    torch.testing.assert_close(objective(logits, (extra,), labels, None), expected)


# schedules and optimisers


@pytest.mark.parametrize("steps", [7, 50, 1056])
def test_one_cycle_is_that_of_torch(steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.02, total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        ours = 0.02 * SCHEDULES.get("one-cycle")(step, steps)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            oracle.step()


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_every_schedule_stays_between_nothing_and_its_peak(name, steps):
    factors = [SCHEDULES.get(name)(step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(factors) > 0.03


def test_weights_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model[3].weight.requires_grad_(requires_grad=False)
    decayed, others = parameter_groups(model, 5e-4)
    assert [list(p.shape) for p in decayed["params"]] == [[4, 3, 3, 3]]
    assert decayed["weight_decay"] == 5e-4
    assert [p.ndim for p in others["params"]] == [1, 1, 1, 1]
    assert others["weight_decay"] == 0


def test_a_network_without_parameters_cannot_be_trained():
    with pytest.raises(InputError, match="no parameter"):
        parameter_groups(nn.ReLU(), 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_takes_its_own_learning_rate_or_ours(name):
    own = build_optimizer(nn.Linear(2, 2), FinetuneOptions(optimizer=name))
    assert own.param_groups[0]["lr"] == OPTIMIZERS.get(name).learning_rate
    ours = build_optimizer(nn.Linear(2, 2), FinetuneOptions(optimizer=name, lr=0.125, momentum=0))
    assert ours.param_groups[0]["lr"] == 0.125


def test_sgd_is_nesterov_with_momentum():
    group = build_optimizer(nn.Linear(2, 2), FinetuneOptions()).param_groups[0]
    assert (group["momentum"], group["nesterov"], group["lr"]) == (0.9, True, 0.02)


# augmentation


def windows(image: torch.Tensor, margin: int, *, mirror: bool) -> set[bytes]:
    """Return every outcome that cropping and mirroring one image by hand can have."""
    size = image.shape[-1]
    padded = torch.zeros(3, size + 2 * margin, size + 2 * margin, dtype=torch.uint8)
    padded[:, margin : margin + size, margin : margin + size] = image
    found = set()
    for top in range(2 * margin + 1):
        for left in range(2 * margin + 1):
            window = padded[:, top : top + size, left : left + size]
            found.add(window.contiguous().numpy().tobytes())
            if mirror:
                found.add(window.flip(2).contiguous().numpy().tobytes())
    return found


def made(name: str, images: torch.Tensor) -> Augmentation:
    _, channels, height, width = images.shape
    spec = InputSpec(channels, height, width, (0.5,) * channels, (0.5,) * channels)
    return make_augmentation([name], Setting(spec, 10))


@pytest.mark.parametrize(
    ("name", "margin", "mirror"),
    [("none", 0, False), ("flip", 0, True), ("crop", 4, False), ("crop-flip", 4, True)],
)
def test_an_augmented_image_is_one_of_those_made_by_hand(name, margin, mirror):
    images = random_images(6)
    possible = [windows(image, margin, mirror=mirror) for image in images]
    seen = set()
    for seed in range(8):
        changed = made(name, images).batch(images, seeded(seed))
        assert changed.dtype == torch.uint8
        assert changed.shape == images.shape
        for image, allowed in zip(changed, possible, strict=True):
            content = image.contiguous().numpy().tobytes()
            assert content in allowed
            seen.add(content)
    assert len(seen) > 6 or name == "none"


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_every_augmentation_repeats_with_its_seed_and_leaves_its_input_alone(name):
    images = random_images(8, size=16)
    before = images.clone()
    augment = made(name, images)
    assert torch.equal(augment.batch(images, seeded(1)), augment.batch(images, seeded(1)))
    for change in (
        augment.picture,
        lambda image: augment.mixed(image[None], torch.zeros(1).long()),
    ):
        found = []
        for _ in range(2):
            torch.manual_seed(1)
            found.append(change(images[0]))
        one, two = (each if isinstance(each, torch.Tensor) else each[0] for each in found)
        assert torch.equal(one, two)
    assert torch.equal(images, before)


def test_images_of_a_batch_are_moved_independently():
    images = random_images(1).expand(64, -1, -1, -1)
    changed = made("crop-flip", images).batch(images, seeded())
    assert len({image.contiguous().numpy().tobytes() for image in changed}) > 40


def test_automatic_augmentation_leaves_digits_and_grey_images_alone(tmp_path):
    digits = data.open_source("digits")
    photographs = data.DataSource(tmp_path, "image-folder", ("a",), {})
    grey = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.5,))
    mirrored = "RandomHorizontalFlip(p=0.5)"
    for name, source, spec, text in (
        ("auto", photographs, RGB, f"RandomCrop(size=(32, 32), padding=4), {mirrored}"),
        ("auto", digits, RGB, "none"),
        ("auto", photographs, grey, "none"),
        ("flip", digits, grey, mirrored),
        ("auto+cutmix", digits, grey, "CutMix(alpha=1.0, num_classes=10)"),
    ):
        assert augmentation_for(name, source, spec).text == text


def test_normalising_is_that_of_torchvision_in_channels_last_memory():
    images = random_images()
    oracle = v2.Normalize(RGB.mean, RGB.std)(v2.ToDtype(torch.float32, scale=True)(images))
    ours = normalise(images, RGB)
    torch.testing.assert_close(ours, oracle, atol=1e-6, rtol=1e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


# batches and seeds


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own():
    first, again = (epoch_batches(100, 16, seed=1, epoch=0) for _ in range(2))
    second = epoch_batches(100, 16, seed=1, epoch=1)
    assert sorted(torch.cat(first).tolist()) == list(range(100))
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(second))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(129, 128, [128]), (130, 128, [128, 2]), (5, 128, [5]), (3, 1, [1, 1, 1]), (2, 2, [2])],
)
def test_a_last_batch_of_a_single_image_is_dropped(count, batch_size, sizes):
    assert [len(batch) for batch in epoch_batches(count, batch_size, seed=0, epoch=0)] == sizes


@pytest.mark.parametrize("count", [64, 67, 70, 100])
def test_processes_share_each_batch_equally(count):
    shards = [epoch_batches(count, 32, seed=0, epoch=0, shard=(rank, 4)) for rank in range(4)]
    assert len({len(shard) for shard in shards}) == 1
    for parts in zip(*shards, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) >= 2
    seen = torch.cat([torch.cat(shard) for shard in shards]).tolist()
    assert len(set(seen)) == len(seen) >= count - 8


def test_derived_seeds_are_fixed_and_apart():
    assert derive_seed(0, 1, 2) == derive_seed(0, 1, 2)
    many = {
        derive_seed(seed, epoch, step)
        for seed in range(5)
        for epoch in range(5)
        for step in range(5)
    }
    assert len(many) == 125
    assert all(0 <= seed < 2**63 for seed in many)


# the average


def test_the_average_follows_its_recurrence():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = ExponentialAverage(model, decay=0.9)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(120):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape))
            model[1].num_batches_tracked += 1
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in average.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-5)
    assert average.model[1].num_batches_tracked == 120


# evaluation


@pytest.fixture
def digits_test():
    spec = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.35,))
    return data.load_split(data.open_source("digits"), "test", input=spec), spec


def test_scores_are_those_counted_by_hand(digits_test):
    images, spec = digits_test
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5)).train()
    result = evaluate(model, images, input=spec, batch_size=50)
    pixels = (images.images.float() / 255 - 0.3) / 0.35
    logits = model[1](pixels.flatten(1)).detach()
    right = logits.argmax(1) == images.labels
    order = logits.argsort(1, descending=True)[:, :5]
    top5 = (order == images.labels[:, None]).any(1)
    assert result.count == len(images) == 359
    assert result.accuracy == pytest.approx(right.float().mean().item())
    assert result.top5 == pytest.approx(top5.float().mean().item())
    assert result.loss == pytest.approx(
        nn.functional.cross_entropy(logits, images.labels).item(), rel=1e-5
    )
    for index, name in enumerate(images.classes):
        share = right[images.labels == index].float().mean().item()
        assert result.per_class[name] == pytest.approx(share)
    assert result.split == "test"
    assert model.training
    assert model[2].training


def test_top5_of_fewer_than_five_classes_is_everything():
    tally = tally_logits(torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert tally.top5.item() == 6


def test_evaluation_reports_its_progress(digits_test):
    images, spec = digits_test
    steps = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    result = evaluate(model, images, input=spec, progress=steps.append)
    assert [step.done for step in steps] == [256, 359]
    assert steps[-1].facts["accuracy"] == pytest.approx(result.accuracy)


def test_a_network_for_other_classes_is_refused(digits_test):
    images, spec = digits_test
    with pytest.raises(InputError, match="4 outputs but the data has 10") as caught:
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), images, input=spec)
    assert caught.value.code == "CLASS_COUNT_MISMATCH"


def test_no_images_are_no_score(digits_test):
    _, spec = digits_test
    empty = data.load_split(data.open_source("digits"), "held_out", input=spec, held_out=0.0)
    with pytest.raises(InputError, match="no image to evaluate"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), empty, input=spec)


# precision and interrupts


def capabilities(monkeypatch, **known):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)


def test_a_precision_that_is_asked_for_is_taken():
    assert make_accelerator("bf16").mixed_precision == "bf16"
    assert make_accelerator("no").mixed_precision == "no"
    assert precision_of(make_accelerator("bf16")) == "bf16"
    assert precision_of(make_accelerator("no")) == "fp32"


@pytest.mark.parametrize(
    ("known", "precision"),
    [({"amx_bf16": True, "avx512_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"),
     ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, "no"), ({}, "no")],
)  # fmt: skip
def test_a_cpu_trains_in_bf16_on_its_own_where_it_multiplies_in_it(monkeypatch, known, precision):
    capabilities(monkeypatch, **known)
    assert PRECISIONS["auto"](torch.device("cpu")) == precision
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert PRECISIONS["auto"](torch.device("cpu")) == "no"


@pytest.mark.parametrize(
    ("text", "precision"),
    [("processor : 0\nflags\t\t: fpu avx512f amx_bf16 sse\n", "bf16"),
     ("flags : fpu avx512f amx_tile\n", "no"), ("Features : fp asimd\n", "no"), (None, "no")],
)  # fmt: skip
def test_an_older_torch_asks_the_system_what_the_cpu_can_do(monkeypatch, tmp_path, text, precision):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert PRECISIONS["auto"](torch.device("cpu")) == precision


@pytest.mark.parametrize(("amp", "match"), [("fp16", "needs a GPU"), ("half", "unknown mixed")])
def test_a_precision_that_cannot_be_had_is_refused(amp, match):
    if amp == "fp16" and make_accelerator("auto").device.type != "cpu":
        pytest.skip("this machine has an accelerator")
    with pytest.raises(InputError, match=match):
        make_accelerator(amp)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_step(number):
    handler = signal.getsignal(number)
    reached = []

    def step() -> None:
        with held_interrupts():
            os.kill(os.getpid(), number)
            reached.append(math.sqrt(4))

    with pytest.raises(KeyboardInterrupt):
        step()
    assert reached == [2]
    assert signal.getsignal(number) is handler


def test_a_second_interrupt_does_not_wait():
    reached = []

    def step() -> None:
        with held_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(1)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert reached == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_steps_outside_the_main_thread_are_not_held():
    errors = []

    def work() -> None:
        try:
            with held_interrupts():
                pass
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []
