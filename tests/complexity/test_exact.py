"""Neighbours stay exact on any device and at any precision, and memory does not follow N or K."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from prunecli.analysis.dataset import analyze_dataset
from prunecli.complexity import (
    CsgSettings,
    NetworkFeatures,
    csg,
    csg_by_volume,
    csg_repeated,
    embed_pixels,
    nearest_neighbours,
)
from prunecli.complexity.autoencoder import Autoencoder, encoded, prepared, trained
from prunecli.complexity.classes import confusing_images
from prunecli.complexity.devices import device_named
from prunecli.complexity.products import Frame, Rough, faster_kind, full_precision, scratch_for
from prunecli.data import open_source
from prunecli.errors import DeviceError, InputError
from prunecli.options import ComplexityOptions
from prunecli.verbs.images import features_of
from tests.support.image_folders import write_folder

RANDOM = np.random.default_rng(0)
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
KINDS = [torch.float32, torch.bfloat16]

PIXELS = (RANDOM.integers(0, 256, (900, 96)) / 255).astype(np.float32)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def brute_force(table, queries, count):
    table = table.astype(np.float64)
    squares = ((table[queries][:, None] - table[None]) ** 2).sum(axis=2)
    squares[np.arange(len(queries)), queries] = np.inf
    order = np.lexsort((np.broadcast_to(np.arange(len(table)), squares.shape), squares))
    return order[:, :count]


# Products ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("copies", [1, 3])
def test_neighbours_on_every_device_are_those_of_brute_force(device, kind, copies):
    table = np.concatenate([PIXELS[:300]] * copies + [PIXELS[300:]])
    queries = np.arange(0, len(table), 17)
    found = nearest_neighbours(
        table, queries, neighbours=5, workspace=100_000, device=device, kind=kind
    )
    assert np.array_equal(found.indices, brute_force(table, queries, 5))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e5])
def test_no_product_is_further_off_than_its_slack_says(kind, spread):
    random = np.random.default_rng(1)
    table = 7 + spread * random.standard_t(3, size=(400, 50))
    frame = Frame.of(table, 2**20)
    rough = Rough.of(frame, slice(0, 400), kind=kind, device=torch.device("cpu"))
    found = (
        rough.times(rough, slice(0, 400), scratch_for(400, 400, torch.device("cpu")))
        .double()
        .numpy()
    )
    exact = (table - frame.centre) / frame.scale
    expected = (exact**2).sum(axis=1) - rough.slack - 2 * exact @ exact.T
    error = np.abs(found - expected) / (rough.slack[:, None] + rough.slack[None])
    assert error.max() < 1
    # Nor is the bound so wide that it rules out nothing.
    assert error.max() > 1e-3


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1e-39, 1e-20, 1e36])
def test_scales_at_the_edge_of_float32_are_no_obstacle(kind, scale):
    table = (RANDOM.normal(size=(200, 4)) * scale).astype(np.float32)
    queries = np.arange(30)
    found = nearest_neighbours(table, queries, neighbours=3, kind=kind)
    scaled = table.astype(np.float64) / scale
    assert np.array_equal(found.indices, brute_force(scaled, queries, 3))


def test_pixels_of_eight_bits_lose_nothing_in_bfloat16():
    # Their centres lie on the same grid, so that what is left are whole numbers up to 255.
    frame = Frame.of(PIXELS, 2**20)
    rough = Rough.of(frame, slice(0, 900), kind=torch.bfloat16, device=torch.device("cpu"))
    assert rough.loss == 2.0**-16
    pixels = rough.points.double().numpy()
    assert np.array_equal(pixels, pixels.round())


def test_a_caller_s_lower_precision_changes_neither_neighbours_nor_itself():
    queries = np.arange(200)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nearest_neighbours(PIXELS, queries, neighbours=3, kind=torch.float32)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.array_equal(found.indices, brute_force(PIXELS, queries, 3))


def test_the_precision_comes_back_after_an_error():
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), full_precision(torch.device("cpu")):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before


def test_products_less_exact_than_they_claim_are_an_error_and_no_wrong_answer(monkeypatch):
    def rounded(self, other, part, scratch, times=Rough.times):
        return times(self, other, part, scratch).mul_(1.01)

    monkeypatch.setattr(Rough, "times", rounded)
    with pytest.raises(DeviceError, match="less exact") as caught:
        nearest_neighbours(PIXELS, np.arange(50), neighbours=3, kind=torch.float32)
    assert caught.value.code == "DEVICE_IMPRECISE"
    assert caught.value.exit_code == 6


def test_few_products_are_float32_and_many_are_of_a_kind_that_is_measured(monkeypatch):
    frame, device = Frame.of(PIXELS, 2**20), torch.device("cpu")
    assert faster_kind(frame, 10, device) == torch.float32
    monkeypatch.setattr("prunecli.complexity.products.LARGE", 0)
    assert faster_kind(frame, 10, device) in KINDS


def test_a_table_that_may_not_be_written_is_read():
    table = PIXELS.copy()
    table.flags.writeable = False
    found = nearest_neighbours(table, np.arange(20), neighbours=2)
    assert np.array_equal(found.indices, brute_force(table, np.arange(20), 2))


def test_the_search_reports_its_progress():
    steps = []
    nearest_neighbours(PIXELS, np.arange(60), neighbours=2, workspace=20_000, progress=steps.append)
    assert [step.done for step in steps] == list(range(1, steps[-1].total + 1))
    assert {step.stage for step in steps} == {"neighbours"}


# Devices -----------------------------------------------------------------------------------------


def test_a_device_is_named_or_chosen():
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [("gpu0", InputError, "BAD_DEVICE"), ("cuda:99", DeviceError, "DEVICE_MISSING")],
)
def test_a_device_that_is_not_there_is_named(name, error, code):
    with pytest.raises(error) as caught:
        device_named(name)
    assert caught.value.code == code


# Many classes ------------------------------------------------------------------------------------


def crowd(classes=300, count=8, width=4):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), count)
    return random.normal(size=(classes, width))[labels] + random.normal(
        size=(len(labels), width)
    ), labels


def test_several_volumes_at_once_are_those_one_by_one():
    points, labels = crowd(20)
    settings = CsgSettings(samples=5, seed=3)
    found = csg_by_volume(
        points, labels, volumes=("box", "none", "box"), repeats=3, settings=settings
    )
    assert list(found) == ["box", "none"]
    for volume, together in found.items():
        alone = csg_repeated(
            points, labels, repeats=3, settings=CsgSettings(samples=5, seed=3, volume=volume)
        )
        assert together.mean == alone.mean
        assert [run.settings.volume for run in together.runs] == [volume] * 3
        assert np.array_equal(together.similarity, alone.similarity)


def test_the_score_of_the_mean_spectrum_is_no_more_than_the_mean_score():
    from prunecli.complexity import SCORES

    repeated = csg_repeated(*crowd(30), repeats=8, settings=CsgSettings(samples=3))
    spectrum = np.mean([run.eigenvalues for run in repeated.runs], axis=0)
    assert SCORES.get("csg")(spectrum) <= repeated.mean + 1e-12


def test_repeats_over_many_classes_hold_no_table_of_samples_by_classes():
    points, labels = crowd()
    tracemalloc.start()
    repeated = csg_repeated(points, labels, repeats=12, settings=CsgSettings(samples=8))
    images = confusing_images(repeated.runs, [str(c) for c in range(300)], [""] * len(labels))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(images) > 300
    # One such table [2400, 300] takes 5.8 MB, and the two matrices [300, 300] of a run 1.4 MB.
    assert peak < 12e6


def test_the_most_confusing_images_are_those_of_the_full_table_of_votes():
    points, labels = crowd(6, 40)
    repeated = csg_repeated(
        points, labels, repeats=3, settings=CsgSettings(samples=30, neighbours=7)
    )
    names = [f"class {number}" for number in range(6)]
    paths = [f"{row}.png" for row in range(len(labels))]
    expected = {}
    for run in repeated.runs:
        for row, (votes, volume) in enumerate(zip(run.votes, run.log_volumes, strict=True)):
            own = run.sample_classes[row]
            votes[own] = 0
            if votes.max() > 0:
                expected[run.samples[row]] = (own, -votes.max(), volume, votes.argmax())
    ranked = sorted((key[:3], row, key[3]) for row, key in expected.items())
    found = confusing_images(repeated.runs, names, paths)
    for number, name in enumerate(names):
        best = [entry for entry in ranked if entry[0][0] == number][:5]
        assert [image.path for image in found if image.name == name] == [
            paths[row] for _, row, _ in best
        ]
        assert [image.looks_like for image in found if image.name == name] == [
            names[like] for _, _, like in best
        ]


# The autoencoder ---------------------------------------------------------------------------------


def test_the_decoder_by_its_axes_is_the_decoder_run_on_everything():
    torch.manual_seed(0)
    network = Autoencoder(3).double().train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.weight, 1.0, 0.3)
            torch.nn.init.normal_(layer.bias)
    batch = prepared(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)).double()
    parameters = list(network.parameters())
    short, long = network(batch), network.decoder(network.encoder(batch))
    assert short.shape == (4, 3, 64, 64)
    assert torch.allclose(short, long, atol=1e-12)
    weights = torch.randn_like(batch)
    gradients = torch.autograd.grad((short * weights).mean(), parameters)
    expected = torch.autograd.grad((long * weights).mean(), parameters)
    for found, known in zip(gradients, expected, strict=True):
        assert torch.allclose(found, known, atol=1e-10)


def test_no_epoch_of_training_is_refused():
    with pytest.raises(InputError, match="an epoch or more") as caught:
        embed_pixels(np.zeros((4, 1, 8, 8), np.uint8), kind="autoencoder", epochs=0)
    assert caught.value.code == "BAD_SETTING"


def test_training_goes_on_epoch_by_epoch_as_far_as_it_is_asked():
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    after = [encoded(network, images) for network in trained(images, epochs=2)]
    (once,) = [encoded(network, images) for network in trained(images, epochs=1)]
    assert np.array_equal(after[0], once)
    assert not np.array_equal(after[0], after[1])


# What is kept by content -------------------------------------------------------------------------


def test_a_kept_embedding_is_made_anew_when_an_image_or_a_setting_changes(tmp_path):
    from PIL import Image

    folder = write_folder(tmp_path / "images")
    model = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    from prunecli.architectures.reference import InputSpec

    spec = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
    other = InputSpec(3, 8, 8, (0.5,) * 3, (1.0,) * 3)

    def found_ready(seed=0, spec=spec, digest="digest", **options):
        asked = ComplexityOptions(**({"repeats": 2, "embedding": "model"} | options))
        network = NetworkFeatures(spec, features_of(model, spec), digest)
        report = analyze_dataset(open_source(folder), options=asked, seed=seed, network=network)
        return report.csg_settings["cached"]

    assert not found_ready()
    assert found_ready()
    assert found_ready(samples=3, neighbours=2, volume="none")
    assert not found_ready(seed=1)
    assert not found_ready(digest="another")
    assert not found_ready(spec=other)
    assert not found_ready(limit=10)
    assert not found_ready(embedding="model+pca-2")
    pixels = np.asarray(Image.open(folder / "cat" / "3.png")).copy()
    pixels[4, 4, 1] ^= 1
    Image.fromarray(pixels).save(folder / "cat" / "3.png")
    assert not found_ready()
    assert found_ready()


# The notes' pitfalls -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def test_where_every_window_is_flat_the_scale_and_the_volume_are_of_no_matter(digits):
    points, labels = digits
    plain = csg(points, labels)
    assert (plain.log_volumes == np.log(1e-4)).all()
    assert csg(points / 16, labels).csg == pytest.approx(plain.csg, abs=1e-12)
    assert csg(points, labels, volume="none").csg == pytest.approx(plain.csg, abs=1e-12)


@pytest.mark.parametrize(("neighbours", "expected"), [(3, 0.050), (5, 0.060), (10, 0.107)])
def test_the_score_depends_on_the_number_of_neighbours(digits, neighbours, expected):
    settings = CsgSettings(samples=100, neighbours=neighbours)
    found = csg_repeated(*digits, repeats=5, settings=settings)
    assert found.mean == pytest.approx(expected, abs=0.012)


def test_fifty_neighbours_of_random_labels_give_the_known_score():  # T10
    random = np.random.RandomState(0)
    points, labels = random.rand(3000, 2), random.randint(0, 10, 3000)
    assert csg(points, labels, samples=300, neighbours=50).csg == pytest.approx(8.84, abs=0.005)


def test_subsets_of_digits_in_the_plane_overlap_as_much_as_the_whole(digits):
    from sklearn.decomposition import PCA

    from prunecli.complexity.reduction import balanced_rows

    points, labels = PCA(2, svd_solver="full").fit_transform(digits[0]), digits[1]
    for size in (20, 40, 80, 120, 174):
        chosen = [balanced_rows(labels, size, seed=seed) for seed in range(5)]
        scores = [csg(points[rows], labels[rows], samples=1.0).csg for rows in chosen]
        assert 0.9 < np.mean(scores) < 1.6
