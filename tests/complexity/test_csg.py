"""The cumulative spectral gradient against known answers, a plain loop and its own laws."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from prunecli.complexity import (
    EMBEDDINGS,
    SCORES,
    VOLUMES,
    CsgSettings,
    class_similarity,
    csg,
    csg_repeated,
    embed_pixels,
    laplacian_spectrum,
)
from prunecli.errors import InputError

TOY = [(0, 0), (1, 0), (0, 1), (1.2, 1.1), (3, 3), (4, 3), (3, 4.2), (2, 2)]
TOY_LABELS = [0, 0, 0, 0, 1, 1, 1, 1]
THREE = [*TOY, (5, 0), (5.5, 1), (4.4, 1.2), (6, 0.3)]
THREE_LABELS = [*TOY_LABELS, 2, 2, 2, 2]


def all_samples(features, labels, **options):
    """The deterministic score: every sample of every class is drawn."""
    return csg(features, labels, samples=1.0, **options)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def digits_plane(digits):
    return PCA(2, svd_solver="full").fit_transform(digits[0])


def blobs(*, classes=4, count=60, width=3, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(scale=2.0, size=(classes, width))
    labels = np.repeat(np.arange(classes), count)
    return centres[labels] + spread * rng.normal(size=(len(labels), width)), labels


# Known answers of the spectrum -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("similarity", "eigenvalues", "expected"),
    [
        ([[1, 0.3], [0.3, 1]], (0, 0.6), 0.3),
        (np.full((4, 4), 0.25) + 0.75 * np.eye(4), (0, 1, 1, 1), 0.75),
        (
            [[1, 0.5, 0.1], [0.5, 1, 0.2], [0.1, 0.2, 1]],
            (0, 0.439445, 1.160555),
            0.507037,
        ),
        (
            [[1, 0.6, 0.05, 0], [0.6, 1, 0.1, 0], [0.05, 0.1, 1, 0.4], [0, 0, 0.4, 1]],
            (0, 0.133934, 0.887918, 1.278148),
            0.536140,
        ),
    ],
    ids=["T1", "T2", "T3", "T4"],
)
def test_spectrum_and_score_of_known_similarities(similarity, eigenvalues, expected):
    found = laplacian_spectrum(np.array(similarity, dtype=float))
    assert found == pytest.approx(eigenvalues, abs=1e-6)
    assert SCORES.get("csg")(found) == pytest.approx(expected, abs=1e-6)


def test_equal_similarity_of_all_classes_scores_similarity_times_one_less_than_classes():
    for classes in (2, 3, 7):
        similarity = np.full((classes, classes), 0.4)
        eigenvalues = laplacian_spectrum(similarity)
        assert eigenvalues == pytest.approx([0] + [0.4 * classes] * (classes - 1), abs=1e-12)
        assert SCORES.get("csg")(eigenvalues) == pytest.approx(0.4 * (classes - 1))


def test_auls_of_two_classes_is_the_square_of_their_similarity():
    assert SCORES.get("auls")(np.array([0.0, 0.6])) == pytest.approx(0.3**2)


def test_a_class_apart_from_all_others_leaves_the_score_unchanged():
    similarity = np.array([[1, 0.5, 0.1], [0.5, 1, 0.2], [0.1, 0.2, 1]])
    wider = np.eye(4)
    wider[:3, :3] = similarity
    assert SCORES.get("csg")(laplacian_spectrum(wider)) == pytest.approx(0.507037, abs=1e-6)


def test_class_similarity_is_one_minus_the_bray_curtis_distance():
    from scipy.spatial.distance import braycurtis

    rows = np.random.default_rng(0).dirichlet(np.ones(5), size=5)
    expected = [[1 - braycurtis(a, b) for b in rows] for a in rows]
    assert class_similarity(rows) == pytest.approx(np.array(expected), abs=1e-14)


# Known answers of the whole estimate -------------------------------------------------------------


def test_two_toy_classes_give_the_known_likelihood_and_score():  # T5
    result = csg(TOY, TOY_LABELS)
    assert result.likelihood == pytest.approx(
        np.array([[0.922481, 0.077519], [0.151203, 0.848797]]), abs=1e-6
    )
    assert result.csg == pytest.approx(0.228722, abs=1e-6)
    assert result.similarity[0, 1] == pytest.approx(0.228722, abs=1e-6)
    densities = dict(zip(result.samples.tolist(), result.densities, strict=True))
    assert densities[3] == pytest.approx((0.126263, 0.063131), abs=1e-6)
    assert densities[7] == pytest.approx((0.083333, 0.041667), abs=1e-6)


def test_three_toy_classes_give_the_known_spectrum():  # T6
    result = csg(THREE, THREE_LABELS)
    assert result.likelihood == pytest.approx(
        np.array([[0.922481, 0.077519, 0], [0.142241, 0.778736, 0.079023], [0, 0, 1]]), abs=1e-6
    )
    similarity = result.similarity
    assert (similarity[0, 1], similarity[1, 2], similarity[0, 2]) == pytest.approx(
        (0.219761, 0.079023, 0), abs=1e-6
    )
    assert result.eigenvalues == pytest.approx((0, 0.105980, 0.491587), abs=1e-6)
    assert result.csg == pytest.approx(0.228130, abs=1e-6)


def test_a_singleton_class_gives_the_known_spectrum_and_a_warning():  # T7
    result = csg(THREE, [*THREE_LABELS[:-1], 3])
    assert result.eigenvalues == pytest.approx((0, 0.126213, 0.550378, 1.412356), abs=1e-6)
    assert result.csg == pytest.approx(0.603931, abs=1e-6)
    assert any("2 classes have no more than 3 samples" in line for line in result.warnings)


@pytest.mark.parametrize(
    "names",
    [(0, 1, 3), (1, 2, 3), (-1, 0, 1), ("cat", "dog", "emu"), (0.5, 1.5, 7.0), (False, True, 2)],
    ids=str,
)
def test_what_classes_are_called_does_not_matter(names):  # T8
    result = csg(THREE, np.array(names)[THREE_LABELS])
    assert result.csg == pytest.approx(0.228130, abs=1e-6)
    assert result.classes == tuple(np.array(names).tolist())


def test_digits_in_the_plane_give_the_known_spectrum(digits, digits_plane):  # T9
    result = all_samples(digits_plane, digits[1])
    assert result.csg == pytest.approx(1.425877, abs=1e-3)
    expected = (0, 0.2688, 0.5460, 0.9197, 2.4614, 2.6290, 2.9953, 3.3730, 4.0217, 4.3676)
    assert result.eigenvalues == pytest.approx(expected, abs=1e-3)


def test_digits_in_the_plane_give_the_reference_scores_seed_by_seed(digits, digits_plane):
    scores = [csg(digits_plane, digits[1], samples=100, seed=seed).csg for seed in range(5)]
    assert scores == pytest.approx([1.3245, 1.3348, 1.3563, 1.2655, 1.5216], abs=1e-3)


def test_digits_in_eight_dimensions_give_the_reference_scores(digits):
    points = PCA(8, svd_solver="full").fit_transform(digits[0])
    scores = [csg(points, digits[1], samples=100, seed=seed).csg for seed in range(5)]
    assert scores == pytest.approx([0.0633, 0.1039, 0.0985, 0.1161, 0.0546], abs=1e-3)


def test_raw_digits_match_the_reference_but_for_ties(digits):
    # Integer pixels tie at the border of the neighbourhood; the reference breaks ties at will.
    assert csg(*digits).csg == pytest.approx(0.0411, abs=0.01)
    repeated = csg_repeated(*digits, repeats=5, settings=CsgSettings(samples=100))
    assert repeated.mean == pytest.approx(0.0497, abs=0.005)


@pytest.mark.parametrize(("neighbours", "expected"), [(1, 7.88), (3, 8.238865), (10, 8.63)])
def test_random_labels_score_close_to_the_maximum(neighbours, expected):  # T10
    random = np.random.RandomState(0)
    points = random.rand(3000, 2)
    labels = random.randint(0, 10, 3000)
    score = csg(points, labels, samples=300, neighbours=neighbours).csg
    assert score == pytest.approx(expected, abs=1e-6 if neighbours == 3 else 0.005)


def test_separated_blobs_score_exactly_zero():  # T10
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 30)
    assert csg(100.0 * labels[:, None] + rng.random((300, 2)), labels).csg == 0.0


@pytest.mark.slow
@pytest.mark.skipif("CI" in os.environ, reason="T11 reads 50,000 images and takes 30 s")
def test_cifar10_pixels_score_as_published(cifar_dir):  # T11
    folders = sorted((Path(cifar_dir) / "train").iterdir())
    files = [
        (path, label) for label, place in enumerate(folders) for path in sorted(place.iterdir())
    ]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in files]).transpose(0, 3, 1, 2)
    result = csg(embed_pixels(pixels, kind="raw"), [label for _, label in files], seed=2)
    assert result.csg == pytest.approx(3.752, abs=1e-3)
    names = [place.name for place in folders]
    cat, dog = names.index("cat"), names.index("dog")
    automobile, truck = names.index("automobile"), names.index("truck")
    assert result.similarity[cat, dog] == pytest.approx(0.884, abs=1e-3)
    assert result.similarity[automobile, truck] == pytest.approx(0.791, abs=1e-3)


def test_label_noise_raises_the_score(digits, digits_plane):
    means = []
    for share in (0.0, 0.1, 0.25, 0.5, 1.0):
        scores = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            labels = digits[1].copy()
            hit = rng.random(len(labels)) < share
            labels[hit] = rng.integers(0, 10, hit.sum())
            scores.append(csg(digits_plane, labels, samples=100, seed=seed).csg)
        means.append(np.mean(scores))
    assert means == sorted(means)
    assert means == pytest.approx([1.34, 1.91, 3.72, 5.92, 7.26], rel=0.15)


def test_clamped_volumes_make_small_scales_differ():
    # The pitfall of an absolute smallest volume, which a smaller one takes away.
    points, labels = blobs(seed=3, spread=1.5)
    ordinary = all_samples(points, labels)
    small = all_samples(points * 1e-3, labels)
    assert small.csg != pytest.approx(ordinary.csg, abs=1e-3)
    assert small.csg == pytest.approx(all_samples(points, labels, volume="none").csg)
    assert any("volumes lie below" in line for line in small.warnings)
    free = all_samples(points * 1e-3, labels, min_volume=1e-30)
    assert free.csg == pytest.approx(ordinary.csg)


# Laws --------------------------------------------------------------------------------------------

LAW = settings(max_examples=15, deadline=None)


@LAW
@given(seed=st.integers(0, 1000), volume=st.sampled_from(VOLUMES.names()))
def test_the_score_lies_between_zero_and_one_less_than_classes(seed, volume):
    points, labels = blobs(seed=seed, count=20, spread=5.0)
    result = csg(points, labels, samples=10, volume=volume, seed=seed)
    assert 0 <= result.csg <= 3 + 1e-9
    assert result.likelihood.sum(axis=1) == pytest.approx(np.ones(4))
    assert np.array_equal(result.similarity, result.similarity.T)
    assert np.diag(result.similarity) == pytest.approx(np.ones(4))


@LAW
@given(seed=st.integers(0, 1000))
def test_numbering_classes_differently_changes_nothing(seed):
    points, labels = blobs(seed=seed)
    order = np.random.default_rng(seed).permutation(4)
    plain, permuted = all_samples(points, labels), all_samples(points, order[labels])
    assert permuted.csg == pytest.approx(plain.csg, abs=1e-9)
    assert permuted.similarity[np.ix_(order, order)] == pytest.approx(plain.similarity)


@LAW
@given(
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.5, 3.0, 1e6]),
    offset=st.sampled_from([0.0, -7.0, 1e4]),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
)
def test_moving_mirroring_and_scaling_points_changes_nothing(seed, scale, offset, signs):
    points, labels = blobs(seed=seed)
    points = points.round(3)  # so that the moved points do not lose digits
    options = {"min_volume": 1e-12}
    moved = points * np.array(signs) * scale + offset
    expected = all_samples(points, labels, **options).csg
    assert all_samples(moved, labels, **options).csg == pytest.approx(expected, abs=1e-6)


@LAW
@given(seed=st.integers(0, 1000))
def test_the_order_of_samples_changes_nothing(seed):
    points, labels = blobs(seed=seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    expected = all_samples(points, labels).csg
    assert all_samples(points[order], labels[order]).csg == pytest.approx(expected, abs=1e-9)


@LAW
@given(seed=st.integers(0, 1000), count=st.integers(4, 12), neighbours=st.integers(1, 3))
def test_the_estimate_agrees_with_a_plain_loop(seed, count, neighbours):
    points, labels = blobs(seed=seed, classes=3, count=count, spread=3.0)
    likelihood = np.zeros((3, 3))
    for own, label in enumerate(labels):
        distances = np.linalg.norm(points - points[own], axis=1)
        distances[own] = np.inf
        near = np.argsort(distances)[:neighbours]
        box = np.prod(2 * np.abs(points[near] - points[own]).max(axis=0))
        for other in near:
            likelihood[label, labels[other]] += 1 / neighbours / max(box, 1e-4)
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    result = all_samples(points, labels, neighbours=neighbours)
    assert result.likelihood == pytest.approx(likelihood)


def test_volumes_of_thousands_of_features_neither_over_nor_underflow():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    for scale in (1e-3, 1e3):
        points = scale * rng.normal(size=(40, 3000))
        result = csg(points, labels, min_volume=1e-300)
        assert np.isfinite(result.log_volumes).all()
        assert 0 <= result.csg <= 1


def test_identical_points_give_full_overlap():
    result = csg(np.ones((40, 2)), np.tile([0, 1], 20), neighbours=20)
    assert result.csg == pytest.approx(1.0, abs=0.1)


# Sampling, repeats and what a result holds -------------------------------------------------------


def test_the_same_seed_draws_the_same_samples_and_another_does_not():
    points, labels = blobs()
    first, again, other = (csg(points, labels, samples=10, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.samples, again.samples)
    assert first.csg == again.csg
    assert not np.array_equal(first.samples, other.samples)


def test_an_integer_counts_samples_and_a_float_is_a_share():
    points, labels = blobs(count=40)
    assert len(csg(points, labels, samples=1).samples) == 4
    assert len(csg(points, labels, samples=1.0).samples) == 160
    assert len(csg(points, labels, samples=0.26).samples) == 4 * 10
    assert len(csg(points, labels, samples=np.int64(7)).samples) == 4 * 7


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002 - the state that others may rely on
    csg(*blobs(), seed=1)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2] == after[2]
    assert np.array_equal(before[1], after[1])


def test_a_result_says_how_it_was_computed_and_names_rows_of_the_input():
    points, labels = blobs()
    result = csg(points, labels, samples=10, neighbours=5, volume="none", seed=4)
    assert result.settings == CsgSettings(samples=10, neighbours=5, volume="none", seed=4)
    assert np.array_equal(labels[result.samples], result.sample_classes)
    assert np.array_equal(labels[result.neighbours], result.neighbour_classes)
    assert result.votes.sum(axis=1) == pytest.approx(np.ones(40))
    assert result.effective_samples == pytest.approx([10] * 4)
    assert result.densities == pytest.approx(result.votes)


def test_a_few_samples_that_decide_are_warned_about(digits):
    rng = np.random.default_rng(0)
    points = np.concatenate([1e-3 * rng.normal(size=(5, 2)), 10 * rng.normal(size=(300, 2))])
    labels = np.concatenate([np.zeros(155, int), np.ones(150, int)])
    result = csg(points, labels)
    assert result.effective_samples[0] < 10
    assert any("effective sample size" in line for line in result.warnings)
    assert not any("effective" in line for line in csg(points, labels, volume="none").warnings)


def test_small_classes_can_be_left_out_without_losing_track_of_rows():
    points, labels = THREE, ["a", "a", "a", "a", "b", "b", "b", "b", "z", "c", "c", "c"]
    result = csg(points, labels, min_class_size=2)
    assert result.classes == ("a", "b", "c")
    assert 8 not in result.samples
    assert 8 not in result.neighbours
    assert np.array_equal(
        np.array(labels)[result.neighbours], np.array(result.classes)[result.neighbour_classes]
    )
    assert "fewer than 2 samples are left out: z" in result.warnings[0]


def test_repeats_give_the_mean_and_the_t_interval_of_the_scores():
    from scipy import stats

    points, labels = blobs(spread=3.0)
    steps = []
    repeated = csg_repeated(
        points, labels, repeats=5, settings=CsgSettings(samples=20, seed=7), progress=steps.append
    )
    scores = [csg(points, labels, samples=20, seed=seed).csg for seed in range(7, 12)]
    assert [run.csg for run in repeated.runs] == scores
    assert repeated.mean == pytest.approx(np.mean(scores))
    expected = stats.t.interval(0.95, 4, loc=np.mean(scores), scale=stats.sem(scores))
    assert repeated.interval == pytest.approx(expected)
    draws = [(step.done, step.total) for step in steps if step.stage == "complexity"]
    assert draws == [(n, 5) for n in range(1, 6)]
    likelihoods = [run.likelihood for run in repeated.runs]
    assert repeated.likelihood == pytest.approx(np.mean(likelihoods, axis=0))
    similarities = [run.similarity for run in repeated.runs]
    assert repeated.similarity == pytest.approx(np.mean(similarities, axis=0))


def test_one_repeat_has_no_spread():
    repeated = csg_repeated(*blobs(), repeats=1)
    assert repeated.interval == (repeated.mean, repeated.mean)
    assert np.isnan(repeated.standard_deviation)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "labels", "options", "code"),
    [
        ([[0.0], [np.nan], [1.0], [2.0]], [0, 0, 1, 1], {}, "BAD_FEATURES"),
        ([[0.0], [np.inf], [1.0], [2.0]], [0, 0, 1, 1], {}, "BAD_FEATURES"),
        ([[-1e308], [1e308], [1.0], [2.0]], [0, 0, 1, 1], {}, "BAD_FEATURES"),
        (np.zeros((4, 2, 2)), [0, 0, 1, 1], {}, "BAD_FEATURES"),
        (np.zeros(4), [0, 0, 1, 1], {}, "BAD_FEATURES"),
        (np.zeros((4, 0)), [0, 0, 1, 1], {}, "BAD_FEATURES"),
        (np.zeros((0, 4)), [], {}, "BAD_FEATURES"),
        (np.array([["a"], ["b"]]), [0, 1], {}, "BAD_FEATURES"),
        (TOY, np.eye(2)[TOY_LABELS], {}, "BAD_LABELS"),
        (TOY, TOY_LABELS[:-1], {}, "BAD_LABELS"),
        (TOY, [*TOY_LABELS[:-1], np.nan], {}, "BAD_LABELS"),
        (TOY, [1] * 8, {}, "ONE_CLASS"),
        (THREE, [*TOY_LABELS, 2, 3, 4, 5], {"min_class_size": 5}, "ONE_CLASS"),
        (TOY, TOY_LABELS, {"neighbours": 8}, "TOO_FEW_SAMPLES"),
        (TOY, TOY_LABELS, {"neighbours": 0}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"samples": 0}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"samples": 1.5}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"samples": True}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"min_volume": 0.0}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"seed": -1}, "BAD_SETTING"),
        (TOY, TOY_LABELS, {"volume": "sphere"}, "UNKNOWN_VOLUME"),
        (TOY, TOY_LABELS, {"variant": "csq"}, "UNKNOWN_COMPLEXITY_SCORE"),
    ],
)
def test_bad_input_is_named(features, labels, options, code):
    with pytest.raises(InputError) as caught:
        csg(features, labels, **options)
    assert caught.value.code == code


def test_no_repeats_are_refused():
    with pytest.raises(InputError, match="repeats is at least 1"):
        csg_repeated(TOY, TOY_LABELS, repeats=0)


# Embeddings --------------------------------------------------------------------------------------


def images(count=30, shape=(3, 4, 5)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def test_raw_pixels_are_rows_from_zero_to_one():
    pixels = images()
    points = embed_pixels(torch.from_numpy(pixels), kind="raw")
    assert points.dtype == np.float32
    assert points == pytest.approx(pixels.reshape(30, 60) / 255.0)


def test_principal_components_match_a_singular_value_decomposition():
    pixels = images().reshape(30, 60) / 255.0
    centred = pixels - pixels.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    expected = np.abs(centred @ directions[:4].T)
    assert np.abs(embed_pixels(images(), kind="pca-4")) == pytest.approx(expected, abs=1e-4)


def test_equal_images_embed_without_a_warning():
    points = embed_pixels(np.zeros((8, 1, 4, 4), dtype=np.uint8), kind="pca-2")
    assert points == pytest.approx(np.zeros((8, 2)))


@pytest.mark.parametrize("entry", list(EMBEDDINGS), ids=lambda entry: entry.name)
def test_every_embedding_gives_a_finite_row_per_image(entry):
    kind = f"{entry.name}-3" if entry.name in {"pca", "tsne"} else entry.name
    asked = {"kind": kind, "seed": 1, "epochs": 1, "features": brightness}
    pixels = images(6 if entry.name == "autoencoder" else 30)
    points = embed_pixels(pixels, **asked)
    assert len(points) == len(pixels)
    assert np.isfinite(points).all()
    assert np.array_equal(points, embed_pixels(pixels, **asked))


def brightness(pixels):
    return pixels.float().mean((2, 3)).numpy()


def test_a_chain_embeds_what_its_first_link_makes():
    first = embed_pixels(images(), kind="pca-5")
    expected = np.abs(first[:, :2])
    assert np.abs(embed_pixels(images(), kind="pca-5+pca-2")) == pytest.approx(expected, abs=1e-4)


def test_what_a_network_makes_is_spread_evenly_over_every_feature():
    values = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    points = embed_pixels(images(), kind="model", features=lambda _: np.exp(5 * values))
    assert points == pytest.approx(values.argsort(0).argsort(0) / 29, abs=1e-3)


def test_t_sne_keeps_far_groups_apart():
    pixels = np.concatenate([images() // 8, 255 - images() // 8])
    points = embed_pixels(pixels, kind="tsne-2")
    assert points.shape == (60, 2)
    assert csg(points, np.repeat([0, 1], 30), volume="none").csg < 0.05


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("pca", "BAD_EMBEDDING"),
        ("pca-0", "BAD_EMBEDDING"),
        ("pca-31", "BAD_EMBEDDING"),
        ("raw-3", "BAD_EMBEDDING"),
        ("tsne-4", "BAD_EMBEDDING"),
        ("autoencoder-3", "BAD_EMBEDDING"),
        ("pca-3+autoencoder", "BAD_EMBEDDING"),
        ("model", "EMBEDDING_NEEDS_MODEL"),
        ("raw+", "UNKNOWN_EMBEDDING"),
        ("pcb-3", "UNKNOWN_EMBEDDING"),
        ("pca-x", "UNKNOWN_EMBEDDING"),
    ],
)
def test_impossible_embeddings_are_named(kind, code):
    with pytest.raises(InputError) as caught:
        embed_pixels(images(), kind=kind)
    assert caught.value.code == code
