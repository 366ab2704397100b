"""Single weights: saliencies against autograd, allocations against known answers, patterns."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import prunecli
from prunecli.errors import DeviceError, GateError, GraphError, InputError
from prunecli.network.traced import read_network
from prunecli.options.granularity import Pattern, parse_pattern
from prunecli.signals import PRESETS
from prunecli.sparse import WEIGHT_ALLOCATIONS, weight_layers
from prunecli.sparse.allocation import (
    WeightProblem,
    allocate_weights,
    keep_masks,
    lamp_scores,
    spread,
)
from prunecli.sparse.patterns import pattern_mask, reduction_matrix
from prunecli.sparse.saliency import weight_saliencies, weight_signal, weight_signal_names
from prunecli.sparse.semi_structured import has_pattern, sort_out, to_semi_structured
from tests.support.weights import randomize_

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return randomize_(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(),
            nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(32, 10),
        ).eval(),
        seed=3,
    )  # fmt: skip


NAMES = ("0.weight", "3.weight", "7.weight")


def images(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 8, 8, generator=generator)
    return x, torch.randint(10, (count,), generator=generator)


def saliencies(name: str, model: nn.Module | None = None, **options) -> list[np.ndarray]:
    network = read_network(model or net(), [EXAMPLE])
    return weight_saliencies(network, weight_layers(network), name, **options)


def per_image_gradients(model: nn.Module) -> list[Tensor]:
    """Return `[images, weights]` of every layer, one image at a time by autograd."""
    rows: list[list[Tensor]] = []
    weights = [model.get_parameter(name) for name in NAMES]
    for image, label in zip(*images(), strict=True):
        loss = functional.cross_entropy(model(image[None]), label[None])
        rows.append([g.double().reshape(-1) for g in torch.autograd.grad(loss, weights)])
    return [torch.stack(column) for column in zip(*rows, strict=True)]


# --- saliencies ----------------------------------------------------------------------------------

FORMULAS = {
    "l1": lambda w, _: w.abs(),
    "l2": lambda w, _: w.square(),
    "magnitude": lambda w, _: w.square() / w.square().sum(),
    "min-weight": lambda w, _: w.square(),
    "taylor": lambda w, g: (w * g).abs().mean(0) / (w * g).abs().mean(0).norm(),
    "taylor-share": lambda w, g: (w * g).abs().mean(0) / (w * g).abs().mean(0).sum(),
    "removal": lambda w, g: (w * g).abs().mean(0),
    "fisher": lambda w, g: (w * g).square().mean(0),
    "average-gradient": lambda _, g: g.abs().mean(0),
    "taylor-2019": lambda w, g: (w * g.mean(0)).square(),
    "snip": lambda w, g: (w * g.mean(0)).abs() / (w * g.mean(0)).abs().sum(),
    "weight/taylor/none/none": lambda w, g: -(w * g).mean(0),
    "weight/hessian-approx2/none/none": lambda w, g: 0.5 * (w * g).square().mean(0),
    "weight-batch/gradient/sqr-sum/l0": lambda _, g: g.mean(0).square(),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_saliency_of_single_weights_equals_its_formula(name: str) -> None:
    model = net()
    found = saliencies(name, model, batches=lambda: [images()])
    gradients = per_image_gradients(model)
    for own, parameter, gradient in zip(found, NAMES, gradients, strict=True):
        weight = model.get_parameter(parameter).detach().double().reshape(-1)
        expected = FORMULAS[name](weight, gradient)
        np.testing.assert_allclose(own, expected, rtol=2e-4, atol=1e-7 * expected.abs().max())


def test_obd_of_a_linear_network_is_half_the_exact_curvature_times_the_square() -> None:
    """For one linear layer under cross-entropy the diagonal is `p (1 - p) x^2`."""
    model = nn.Sequential(nn.Flatten(), randomize_(nn.Linear(12, 4)))
    x, labels = torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0])
    network = read_network(model, [x])
    (found,) = weight_saliencies(
        network, weight_layers(network), "obd", batches=lambda: [(x, labels)]
    )
    p = model(x).softmax(1).detach().double()
    flat = x.flatten(1).double()
    curvature = torch.einsum("no,ni->oi", p * (1 - p), flat.square()) / 5
    expected = 0.5 * model[1].weight.detach().double().square() * curvature
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-4)


def test_flops_removed_divides_by_the_places_at_which_a_weight_is_used() -> None:
    plain, scaled = saliencies("l1"), saliencies("weight/value/l1/flops-removed")
    for one, other, places in zip(plain, scaled, (64, 64, 1), strict=True):
        np.testing.assert_allclose(one / places, other, rtol=1e-6)


def test_splitting_the_images_into_batches_changes_no_saliency_of_single_images() -> None:
    x, labels = images()
    halves = [(x[:3], labels[:3]), (x[3:], labels[3:])]
    for one, other in zip(
        saliencies("fisher", batches=lambda: [(x, labels)]),
        saliencies("fisher", batches=lambda: halves),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-12)


def test_random_follows_its_seed() -> None:
    first, again, other = (saliencies("random", seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not any((a == b).any() for a, b in zip(first, other, strict=True))


def test_every_preset_either_ranks_weights_or_is_refused_with_those_that_do() -> None:
    possible = set(weight_signal_names())
    assert {"l1", "taylor", "fisher", "obd", "snip", "taylor-2019", "random"} <= possible
    for entry in PRESETS:
        if entry.name in possible:
            continue
        with pytest.raises(InputError) as caught:
            weight_signal(entry.name)
        assert caught.value.code == "SIGNAL_NOT_OF_WEIGHTS"
        assert ("--allocation lamp" if entry.name == "lamp" else "taylor") in caught.value.hint


@pytest.mark.parametrize(
    "name",
    ["activation/taylor/l1/none", "weight-input/value/l1/none", "weight/mean-replacement/l1/none"],
)
def test_points_of_the_taxonomy_that_single_weights_lack_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        weight_signal(name)
    assert caught.value.code == "SIGNAL_NOT_OF_WEIGHTS"


def test_a_signal_of_gradients_without_images_says_what_to_add() -> None:
    with pytest.raises(InputError, match="looks at images") as caught:
        saliencies("taylor")
    assert caught.value.code == "SIGNAL_NEEDS_DATA"


# --- allocations ---------------------------------------------------------------------------------


def problem(shapes, keep: int, *, values=None, held=()) -> WeightProblem:
    rng = np.random.default_rng(0)
    sizes = np.asarray([math.prod(shape) for shape in shapes])
    values = values or [rng.standard_normal(size) for size in sizes]
    return WeightProblem(
        shapes=tuple(shapes),
        saliencies=tuple(np.abs(own) for own in values),
        magnitudes=tuple(np.abs(own) for own in values),
        keep=keep,
        floors=np.asarray([size if at in held else 1 for at, size in enumerate(sizes)]),
        ceilings=sizes,
    )


SHAPES = [(64, 3, 3, 3), (128, 64, 3, 3), (10, 128)]


def test_erdos_renyi_gives_the_known_answer() -> None:
    """Source: the implementation of Lee et al. 2021, at 90 % sparsity."""
    total = 1728 + 73728 + 1280
    found = allocate_weights("erdos-renyi", problem(SHAPES, round(0.1 * total)))
    assert found.sum() == round(0.1 * total)
    assert found == pytest.approx([1722.3, 4671.3, 1280], abs=1)
    densities = found / np.asarray([1728, 73728, 1280])
    assert densities == pytest.approx([0.9967, 0.0634, 1.0], abs=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_erdos_renyi_follows_the_shapes_of_layers_that_are_not_dense(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(2, 65, rng.integers(2, 5)).tolist()) for _ in range(6)]
    sizes = np.asarray([math.prod(shape) for shape in shapes])
    keep = int(sizes.sum() * rng.uniform(0.1, 0.9))
    counts = allocate_weights("erdos-renyi", problem(shapes, keep))
    sums = np.asarray([sum(shape) for shape in shapes])
    below = counts < sizes
    # One factor explains every layer that is not dense, up to rounding; it would fill the others.
    lowest, highest = ((counts - 1) / sums)[below].max(), ((counts + 1) / sums)[below].min()
    assert lowest <= highest
    assert (counts / sums <= highest)[~below].all()


def test_uniform_plus_says_how_much_can_go() -> None:
    keep = round(0.01 * sum(math.prod(shape) for shape in SHAPES))
    with pytest.raises(GateError, match="first layer stays dense") as caught:
        allocate_weights("uniform-plus", problem(SHAPES, keep))
    total = sum(math.prod(shape) for shape in SHAPES)
    reachable = float(re.search(r"--sparsity ([\d.]+)", caught.value.hint)[1])
    allocate_weights("uniform-plus", problem(SHAPES, math.ceil((1 - reachable) * total)))


def test_lamp_gives_the_known_answer() -> None:
    values = [np.asarray([1.0, -2.0, 3.0]), np.asarray([0.1, 0.2])]
    assert lamp_scores(values[0]) == pytest.approx([1 / 14, 4 / 13, 1])
    assert lamp_scores(values[1]) == pytest.approx([0.2, 1])
    given = problem([(3,), (2,)], 3, values=values)
    counts = allocate_weights("lamp", given)
    masks = keep_masks(given.saliencies, counts)
    assert [values[at][mask].tolist() for at, mask in enumerate(masks)] == [[-2.0, 3.0], [0.2]]


def test_uniform_plus_keeps_the_first_layer_and_a_fifth_of_the_last() -> None:
    sizes = [math.prod(shape) for shape in SHAPES]
    keep = round(0.05 * sum(sizes))
    found = allocate_weights("uniform-plus", problem(SHAPES, keep))
    assert found.tolist() == [1728, keep - 1728 - 256, 256]
    half = allocate_weights("uniform-plus", problem(SHAPES, round(0.5 * sum(sizes))))
    assert half[0] == 1728
    assert half[1] / sizes[1] == pytest.approx(half[2] / sizes[2], abs=1e-3)
    assert half.sum() == round(0.5 * sum(sizes))


def test_global_keeps_the_largest_of_all() -> None:
    given = problem(SHAPES, 5000)
    counts = allocate_weights("global", given)
    together = np.concatenate(given.saliencies)
    threshold = np.sort(together)[-5000]
    assert counts.tolist() == [int((own >= threshold).sum()) for own in given.saliencies]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("inverse-importance", [1 - 0.333889, 1 - 0.667778, 0.001]),
        ("proportional-importance", [1 - 0.529412, 1 - 0.764706, 1 - 0.882353]),
    ],
)
def test_allocation_by_importance_gives_the_known_answer(rule, expected) -> None:
    """Three layers whose weights are worth 4, 2 and 1 each, at a sparsity of 0.8."""
    shapes = [(1000,), (4000,), (5000,)]
    values = [np.full(size, float(worth)) for (size,), worth in zip(shapes, (4, 2, 1), strict=True)]
    counts = allocate_weights(rule, problem(shapes, 2000, values=values))
    assert counts.sum() == 2000
    assert counts == pytest.approx(np.multiply(expected, (1000, 4000, 5000)), abs=1.5)


@pytest.mark.parametrize("rule", WEIGHT_ALLOCATIONS.names())
@pytest.mark.parametrize("seed", range(5))
def test_every_allocation_meets_the_total_to_one_weight_within_its_bounds(rule, seed) -> None:
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(1, 9, rng.integers(2, 5)).tolist()) for _ in range(7)]
    sizes = np.asarray([math.prod(shape) for shape in shapes])
    least = sizes[0] + sizes[2] + math.ceil(0.2 * sizes[-1]) + sizes.size
    for keep in rng.integers(least, sizes.sum() + 1, 4).tolist():
        # Equal values everywhere: ties must be broken, not lost.
        values = [np.round(rng.standard_normal(size), 1) for size in sizes]
        given = problem(shapes, keep, values=values, held=(2,))
        counts = allocate_weights(rule, given)
        assert counts.sum() == keep
        assert (counts >= given.floors).all()
        assert (counts <= given.ceilings).all()
        masks = keep_masks(given.saliencies, counts)
        assert [int(mask.sum()) for mask in masks] == counts.tolist()


def test_the_most_salient_stay_and_ties_go_to_the_lowest_index() -> None:
    (mask,) = keep_masks([np.asarray([1.0, 3.0, 2.0, 2.0, 2.0])], np.asarray([3]))
    assert mask.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("rule", WEIGHT_ALLOCATIONS.names())
def test_a_total_below_the_floors_says_the_highest_sparsity_there_is(rule) -> None:
    with pytest.raises(GateError, match="the highest reachable is") as caught:
        allocate_weights(rule, problem(SHAPES, 1000, held=(0,)))
    assert caught.value.code == "INFEASIBLE_BUDGET"
    assert caught.value.exit_code == 1


def test_what_a_full_layer_cannot_take_goes_to_the_others() -> None:
    given = problem([(4,), (100,), (100,)], 104)
    assert spread(np.asarray([10.0, 1.0, 1.0]), given, given.floors).tolist() == [4, 50, 50]


# --- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 16), (6, 8, 3, 3), (4, 12, 5)])
@pytest.mark.parametrize("pattern", [Pattern(2, 4), Pattern(1, 4), Pattern(3, 4), Pattern(4, 8)])
def test_a_pattern_keeps_the_best_of_every_group_of_inputs(shape, pattern) -> None:
    if shape[1] % pattern.of:
        pytest.skip("does not divide")
    saliency = torch.rand(shape)
    mask = pattern_mask(saliency, pattern)
    for index in np.ndindex(shape[0], shape[1] // pattern.of, *shape[2:]):
        row, group, *position = index
        at = (row, slice(group * pattern.of, (group + 1) * pattern.of), *position)
        best = saliency[at].topk(pattern.keep).indices
        assert mask[at].nonzero()[:, 0].tolist() == sorted(best.tolist())


def test_transposed_convolutions_have_their_inputs_on_the_first_dimension() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
    result = prunecli.sparsify(randomize_(model), torch.randn(2, 8, 4, 4), granularity="2:4")
    weight = result.model[0].weight
    assert has_pattern(weight, input_dim=0)
    assert weight.movedim(0, -1).reshape(-1, 4).count_nonzero(dim=1).tolist() == [2] * 72


def test_torch_packs_every_2_4_matrix_and_gives_it_back() -> None:
    """By torch's own rule for its kernels, which needs no GPU."""
    from torch.sparse import _semi_structured_conversions as torch_rule

    model = nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 4 * 4, 64), nn.Linear(64, 32)
    )
    result = prunecli.sparsify(randomize_(model), torch.randn(2, 8, 4, 4), granularity="2:4")
    for at in (0, 2, 3):
        weight = result.model[at].weight.detach()
        matrix = reduction_matrix(weight).half()
        assert has_pattern(weight)
        if matrix.shape[1] % 64 == 0:
            packed, meta = torch_rule.sparse_semi_structured_from_dense_cutlass(matrix)
            assert packed.shape[1] == matrix.shape[1] // 2
            back = torch_rule.sparse_semi_structured_to_dense_cutlass(packed, meta)
            assert torch.equal(back, matrix)
    assert result.report.sparsity.sparsity == 0.5


def test_layers_whose_inputs_do_not_divide_stay_dense_and_are_reported_with_numbers() -> None:
    result = prunecli.sparsify(net(), EXAMPLE, granularity="2:4")
    (row,) = [row for row in result.report.sparsity.layers if row.reason]
    assert (row.name, row.kept, row.reason) == (
        "0.weight", 216, "its 3 inputs are no multiple of 4",
    )  # fmt: skip
    share = 216 / (216 + 288 + 320)
    told = f"1 of 3 layers ({share:.1%} of the weights) stay as they are"
    assert any(told in warning for warning in result.report.warnings)


def test_a_network_without_a_layer_for_the_pattern_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(6 * 36, 3))
    with pytest.raises(InputError, match="no layer can have the pattern 5:7"):
        prunecli.sparsify(model, EXAMPLE, granularity="5:7")


@pytest.mark.parametrize("text", ["2:2", "0:4", "3:2", "weights", "2:4:8", "-1:4", "2:999", ""])
def test_a_granularity_that_means_nothing_is_refused(text) -> None:
    with pytest.raises(InputError) as caught:
        parse_pattern(text)
    assert caught.value.code == "BAD_GRANULARITY"


# --- semi-structured tensors ---------------------------------------------------------------------


def transformer_like() -> nn.Module:
    return randomize_(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)))


def test_which_linear_layers_can_run_sparse_is_known_on_any_device() -> None:
    result = prunecli.sparsify(transformer_like(), torch.randn(2, 64), granularity="2:4")
    assert sort_out(result.model) == (("0",), {"2": "10x128 is no multiple of 32x64"})
    assert sort_out(transformer_like())[0] == ()


def test_without_sparse_units_or_layers_the_error_says_which() -> None:
    with pytest.raises(InputError, match="its weights are not 2:4") as caught:
        to_semi_structured(transformer_like())
    assert caught.value.code == "NOTHING_TO_CONVERT"
    model = prunecli.sparsify(transformer_like(), torch.randn(2, 64), granularity="2:4").model
    with pytest.raises(DeviceError, match="a cpu device has no sparse matrix units") as caught:
        to_semi_structured(model, device="cpu")
    assert caught.value.exit_code == 6
    with pytest.raises(InputError, match="16-bit"):
        to_semi_structured(model, dtype=torch.float32)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="there is no CUDA device"):
            to_semi_structured(model)


def test_a_gpu_with_sparse_units_computes_what_the_dense_layer_computes() -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no GPU with sparse matrix units: the kernels cannot be run here")
    model = prunecli.sparsify(transformer_like(), torch.randn(2, 64), granularity="2:4").model
    found = to_semi_structured(model)
    assert found.converted == ("0",)
    x = torch.randn(32, 64, device="cuda", dtype=torch.float16)
    expected = model.to("cuda", torch.float16)(x)
    torch.testing.assert_close(found.model(x), expected, rtol=1e-2, atol=1e-2)


# --- the road on modules -------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", WEIGHT_ALLOCATIONS.names())
def test_a_sparse_network_is_dense_times_mask_and_the_given_one_stays_as_it_is(allocation) -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = prunecli.sparsify(model, EXAMPLE, sparsity=0.6, allocation=allocation)
    report = result.report.sparsity
    assert report.kept == 824 - round(0.6 * 824)
    assert sum(row.kept for row in report.layers) == report.kept
    for name, value in result.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], before[name])
        if name in result.masks:
            assert int(result.masks[name].sum()) == int(value.count_nonzero())
            assert torch.equal(value, torch.where(result.masks[name], before[name], 0.0))
        else:
            assert torch.equal(value, before[name])
    assert result.report.verified.max_rel_error == 0
    params = sum(value.numel() for value in model.parameters())
    cost = result.report.cost
    assert (cost.before.params, cost.after.params) == (params, params - round(0.6 * 824))
    assert cost.after.flops == cost.before.flops


def test_excluded_layers_stay_dense_and_the_others_make_up_for_them() -> None:
    result = prunecli.sparsify(net(), EXAMPLE, sparsity=0.5, exclude=["7"])
    kept = {row.name: row.kept for row in result.report.sparsity.layers}
    assert kept["7.weight"] == 320
    assert sum(kept.values()) == 412
    with pytest.raises(GateError, match=r"the highest reachable is 0.609"):
        prunecli.sparsify(net(), EXAMPLE, sparsity=0.9, exclude=["7"])


def test_zeros_that_are_there_stay_when_more_are_made() -> None:
    first = prunecli.sparsify(net(), EXAMPLE, sparsity=0.5, signal="random")
    second = prunecli.sparsify(
        first.model, EXAMPLE, sparsity=0.8, signal="random", seed=9, masks=first.masks
    )
    assert all((second.masks[name] <= first.masks[name]).all() for name in NAMES)
    assert second.report.sparsity.kept == 824 - round(0.8 * 824)
    with pytest.raises(InputError, match="zero already") as caught:
        prunecli.sparsify(second.model, EXAMPLE, sparsity=0.8, masks=second.masks)
    assert caught.value.code == "ALREADY_WITHIN_BUDGET"


def test_a_shared_weight_counts_once_and_is_masked_under_all_its_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu())

    result = prunecli.sparsify(randomize_(Shared()), torch.randn(2, 6), sparsity=0.5)
    assert result.report.sparsity.weights == 36
    assert result.masks.keys() == {"one.weight", "two.weight"}
    assert result.model.one.weight is result.model.two.weight
    assert int(result.model.two.weight.count_nonzero()) == 18


def test_a_weight_that_the_forward_computes_stays_dense_with_that_reason() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 4)
    )
    result = prunecli.sparsify(model, torch.randn(2, 8), sparsity=0.5)
    assert {row.name for row in result.report.sparsity.layers} == {"2.weight"}
    with pytest.raises(GraphError) as caught:
        prunecli.sparsify(model[:1], torch.randn(2, 8), sparsity=0.5)
    assert caught.value.code == "NOTHING_TO_CUT"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"sparsity": None}, "BAD_BUDGET"),
        ({"sparsity": 1.0}, "BAD_BUDGET"),
        ({"granularity": "2:4", "sparsity": 0.5}, "BAD_BUDGET"),
        ({"granularity": "2:4", "sparsity": None, "allocation": "lamp"}, "OPTION_WITHOUT_EFFECT"),
        ({"granularity": "channel"}, "BAD_BUDGET"),
        ({"granularity": "5"}, "BAD_GRANULARITY"),
        ({"signal": "bn-gamma"}, "SIGNAL_NOT_OF_WEIGHTS"),
        ({"allocation": "greedy"}, "UNKNOWN_WEIGHT_ALLOCATION"),
        ({"only": ["nope"]}, "NO_SUCH_LAYER"),
        ({"repair": ["lstsq"], "batches": lambda: [images()]}, "REPAIR_OF_CHANNELS"),
        ({"repair": ["bn"]}, "REPAIR_NEEDS_DATA"),
    ],
)
def test_what_means_nothing_for_single_weights_is_refused(options, code) -> None:
    with pytest.raises(InputError) as caught:
        prunecli.sparsify(net(), EXAMPLE, **{"sparsity": 0.5, **options})
    assert caught.value.code == code
    assert caught.value.hint


def test_everything_excluded_leaves_nothing_to_zero() -> None:
    with pytest.raises(GraphError, match="all 3 layers are frozen"):
        prunecli.sparsify(net(), EXAMPLE, sparsity=0.5, exclude=["*"])


def test_batch_norm_is_estimated_over_all_images_and_the_steps_are_scored() -> None:
    x, labels = images(8)
    result = prunecli.sparsify(
        net(), EXAMPLE, sparsity=0.6, repair=["bn"], batches=lambda: [(x, labels)]
    )
    with torch.no_grad():
        maps = result.model[0](x).double()
    assert result.model[1].running_mean == pytest.approx(maps.mean((0, 2, 3)).numpy(), abs=1e-5)
    variance = maps.transpose(0, 1).flatten(1).var(1)
    assert result.model[1].running_var == pytest.approx(variance.numpy(), rel=1e-4)
    assert [step.name for step in result.report.repair.steps] == ["dense", "cut", "bn"]
    assert not result.model.training
    assert not any(module.training for module in result.model.modules())
