"""Networks whose control flow follows values: one real forward is recorded, the module is cut."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import DeformConv2d, MultiScaleRoIAlign, nms

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.cutting.surgery import cut_module
from prunecli.errors import GraphError, InputError, ProofError
from prunecli.graph.tracing.record import AGAIN, AtLeastOne, attributes_kept, merged, record
from prunecli.graph.tracing.trace import trace
from prunecli.network.traced import read_network
from prunecli.proof.prove import prove
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from prunecli.pruning.road import PruneResult

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    """Three convolutions and a classifier; the networks below differ in what they do between."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, 10)

    def head(self, features: Tensor) -> Tensor:
        return self.fc(features.relu().mean((2, 3)))


class Branches(Plain):
    """Two convolutions, of which one is taken by the sign of the input."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x).relu()
        return self.head(self.second(features) if x.sum() > 0 else self.third(features))


class WrittenSize(Plain):
    """A width that is written in the forward, beside a question that the exporter cannot answer."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        if x.sum() < -1e9:
            features = -features
        return self.fc(self.third(features).relu().mean((2, 3)).view(-1, 16))


class Selects(Plain):
    """Rows are selected by value; on most inputs none."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        chosen = torch.nonzero(x.amax((1, 2, 3)) > 1e9)[:, 0]
        return self.head(self.third(features[chosen]))


class ThroughNumpy(Plain):
    """A question that is answered outside torch."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        if float(x.mean().numpy()) > 1e9:
            features = features * 0
        return self.head(self.third(features))


class Fails(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.first(x))


class Detector(nn.Module):
    """A backbone of two levels, boxes from the scores of a head, and a head on pooled boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 24, 3, 2, 1)
        self.fine, self.coarse = nn.Conv2d(16, 16, 1), nn.Conv2d(24, 16, 1)
        self.tower, self.score = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 1, 1)
        self.box = nn.Conv2d(16, 4, 1)
        self.pool = MultiScaleRoIAlign(["fine", "coarse"], output_size=3, sampling_ratio=2)
        self.hidden, self.classes = nn.Linear(16 * 9, 32), nn.Linear(32, 5)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        x = torch.stack(images)
        fine = self.stem(x).relu()
        coarse = self.coarse(self.down(fine).relu())
        fine = self.fine(fine) + nn.functional.interpolate(coarse, scale_factor=2)
        features = {"fine": fine, "coarse": coarse}
        tower = self.tower(fine).relu()
        scores, boxes = self.score(tower).flatten(1), self.box(tower).flatten(2).movedim(1, 2)
        found = [self._boxes(*one) for one in zip(scores, boxes, strict=True)]
        pooled = self.pool(features, found, [image.shape[-2:] for image in images])
        logits = self.classes(self.hidden(pooled.flatten(1)).relu())
        sizes = [len(one) for one in found]
        return [
            {"boxes": one, "logits": own}
            for one, own in zip(found, logits.split(sizes), strict=True)
        ]

    def _boxes(self, scores: Tensor, boxes: Tensor) -> Tensor:
        best = torch.where(scores.sigmoid() > self.threshold)[0]
        corners = boxes[best].sigmoid() * 8
        corners = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] + 1], dim=1)
        return corners[nms(corners, scores[best], 0.5)]

    threshold = 0.5


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.offset = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 18, 3, 1, 1)
        self.deform, self.fc = DeformConv2d(16, 16, 3, padding=1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.fc(self.deform(x, self.offset(x)).relu().mean((2, 3)))


def cut_half(
    model: nn.Module,
    example: object,
    *,
    flops: float = 0.5,
    params: float | None = None,
    align: int | None = None,
) -> PruneResult:
    result = prunecli.prune(model, example, flops=flops, params=params, signal="l2", align=align)
    assert result.report.verified is not None
    assert result.report.verified.max_rel_error < 1e-8
    assert result.report.cost.kept["flops"] <= flops
    return result


def widths(result: PruneResult) -> dict[str, tuple[int, int]]:
    return {group.name: (group.before, group.after) for group in result.report.groups}


def masked(model: nn.Module, result: PruneResult) -> nn.Module:
    """Zero, by hand and from the plan alone, all that the cut network no longer has."""
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for name, dims in result.plan.slices.items():
            tensor = dict((*reference.named_parameters(), *reference.named_buffers()))[name]
            for dim, kept in dims.items():
                gone = sorted(set(range(tensor.shape[dim])) - set(kept))
                tensor.index_fill_(dim, torch.tensor(gone), 0)
    return reference


@pytest.mark.parametrize("kind", [Branches, Selects, ThroughNumpy])
def test_a_network_that_asks_for_values_is_recorded_cut_and_says_so(kind: type) -> None:
    model = randomize_(kind()).eval()
    result = cut_half(model, IMAGES)
    assert result.report.mode == "module"
    assert any("one real forward was recorded" in text for text in result.report.warnings)
    torch.testing.assert_close(
        result.model.double()(IMAGES.double()), masked(model, result).double()(IMAGES.double())
    )


def test_both_branches_of_a_network_fit_the_cut() -> None:
    model = randomize_(Branches()).eval()
    result = cut_half(model, IMAGES)
    reference = masked(model, result).double()
    for images in (IMAGES.double(), -IMAGES.double()):
        torch.testing.assert_close(result.model.double()(images), reference(images))
    assert not any("no forward tried reached" in text for text in result.report.warnings)


def test_a_layer_that_no_forward_reaches_is_named() -> None:
    class Never(Plain):
        def forward(self, x: Tensor) -> Tensor:
            features = self.first(x).relu()
            if x.sum() > 1e9:
                features = self.second(features)
            return self.head(self.third(features))

    result = cut_half(randomize_(Never()).eval(), IMAGES)
    assert any("reached 2 parameters (second.bias" in text for text in result.report.warnings)


def test_a_size_written_in_a_recorded_forward_leaves_its_group_whole() -> None:
    result = cut_half(randomize_(WrittenSize()).eval(), IMAGES, flops=0.4, align=1)
    assert widths(result)["third"] == (16, 16)
    assert widths(result)["first"][1] < 16
    (reason,) = (item.reason for item in result.frozen if item.name == "third")
    assert "may be written in the forward" in reason
    assert "test_record.py" in reason


def test_a_forward_that_fails_is_told_from_one_that_cannot_be_traced() -> None:
    with pytest.raises(InputError, match=r"forward fails on inputs of shape \(2, 3, 8, 8\)"):
        prunecli.prune(Fails(), IMAGES, flops=0.5)


def test_a_recorded_network_cannot_be_saved_as_a_graph() -> None:
    spec = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(GraphError, match="cannot be written as a graph"):
        prunecli.save(randomize_(Branches()), "never.pt", input=spec)


def test_further_forwards_tie_channels_but_cost_nothing() -> None:
    model = randomize_(Branches()).eval()
    one = record(model, (IMAGES,))
    both = merged(one, record(model, (-IMAGES,)))
    again = [node for node in both.graph.nodes if AGAIN in node.meta]
    assert any(node.target is torch.ops.aten.conv2d.default for node in again)
    network = read_network(model, [IMAGES])
    convolutions = 2 * 64 * 9 * (3 * 16 + 16 * 16)
    assert network.cost.dense["flops"] == convolutions + 2 * 16 * 10


def test_a_recording_leaves_the_attributes_of_the_network_alone() -> None:
    class Remembers(Plain):
        seen: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return self.head(self.first(x) if x.sum() > 0 else self.second(x))

    model = Remembers()
    model.seen = None
    trace(model, [IMAGES])
    assert model.seen is None
    with attributes_kept(model):
        model(IMAGES)
    assert model.seen is None


def test_a_selection_of_nothing_selects_one() -> None:
    nothing = torch.zeros(5) > 1
    with AtLeastOne():
        assert torch.where(nothing)[0].tolist() == [0]
        assert torch.nonzero(nothing).tolist() == [[0]]
        assert torch.where(~nothing)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("threshold", [0.5, 2.0], ids=["finds boxes", "finds nothing"])
def test_a_detector_is_cut_through_its_backbone_levels_and_heads(threshold: float) -> None:
    model = randomize_(Detector()).eval()
    model.threshold = threshold
    images = [torch.rand(3, 32, 32) for _ in range(2)]
    result = cut_half(model, [images], params=0.4, align=1)
    cut = {name for name, (before, after) in widths(result).items() if after < before}
    assert cut == {"stem", "down", "fine", "tower", "hidden"}
    doubles = [image.double() for image in images]
    reference = masked(model, result).double()(doubles)
    for found, expected in zip(result.model.double()(doubles), reference, strict=True):
        torch.testing.assert_close(found["boxes"], expected["boxes"])
        torch.testing.assert_close(found["logits"], expected["logits"])


def test_a_detector_that_finds_nothing_is_judged_by_its_layers() -> None:
    model = randomize_(Detector()).eval()
    model.threshold = 2.0
    example = [[torch.rand(3, 32, 32)]]
    network = read_network(model, example)
    result = cut_half(model, example, params=0.4, align=1)
    slices = {name: dict(dims) for name, dims in result.plan.slices.items()}
    # Let one layer behind the selection read its neighbour's channels.
    kept = slices["classes.weight"][1]
    slices["classes.weight"][1] = tuple((at + 1) % 32 for at in kept)
    keep = torch.ones(network.coupling.atom_count, dtype=torch.bool).numpy()
    for group in network.coupling.groups:
        keep[group.atoms] = False
        keep[[group.first + at for at in result.plan.keep[group.name]]] = True
    wrong = cut_module(model, slices)
    with pytest.raises(ProofError, match="differs from the masked one"):
        prove(
            model, wrong, result.plan.slices, keep, trace=network.trace, coupling=network.coupling
        )


def test_a_deformable_convolution_keeps_its_offsets() -> None:
    model = randomize_(Deformable()).eval()
    result = cut_half(model, IMAGES)
    assert {name for name, (before, after) in widths(result).items() if after < before} == {
        "first",
        "deform",
    }
    assert result.model.deform.in_channels == widths(result)["first"][1]


@pytest.mark.parametrize("example", [{"x": IMAGES}, [IMAGES], IMAGES])
def test_inputs_are_given_by_name_or_by_position(example: object) -> None:
    cut_half(randomize_(Branches()).eval(), example)


def test_inputs_may_hold_tensors_in_a_dictionary() -> None:
    class Named(Plain):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"logits": self.head(self.third(self.first(batch["image"])))}

    cut_half(randomize_(Named()).eval(), [{"image": IMAGES}])


def test_an_unknown_name_of_an_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"do not fit the model's forward.*picture"):
        prunecli.prune(Branches(), {"picture": IMAGES}, flops=0.5)


def test_a_network_for_one_image_alone_is_traced_as_it_is() -> None:
    class One(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.third(self.first(x))).view(1, 10)

    result = cut_half(randomize_(One()).eval(), IMAGES[:1])
    assert result.model(IMAGES[:1]).shape == (1, 10)


def test_a_real_detector_is_cut_to_half_and_proven() -> None:
    model = models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, min_size=128, max_size=128, box_score_thresh=0.0
    )
    model = randomize_(model).eval()
    with torch.no_grad():
        for layer in (model.rpn.head.bbox_pred, model.roi_heads.box_predictor.bbox_pred):
            layer.weight.mul_(1e-3)  # random regressions leave no box inside the image
    result = cut_half(model, torch.rand(1, 3, 128, 128), align=8)
    assert result.report.cost.kept["flops"] >= 0.48
    cut = {name for name, (before, after) in widths(result).items() if after < before}
    assert {"backbone.fpn.inner_blocks.0.0", "roi_heads.box_head.fc6"} <= cut
    images = [torch.rand(3, 128, 128, dtype=torch.float64)]
    found = result.model.double()(images)[0]
    expected = masked(model, result).double()(images)[0]
    assert len(expected["boxes"])
    for key in ("boxes", "scores", "labels"):
        torch.testing.assert_close(found[key], expected[key])


def test_a_layer_name_that_graph_mode_cannot_have_is_named() -> None:
    class Reserved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
            self.fc = nn.Linear(16, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.last(self.graph(x)).mean((2, 3)).view(x.shape[0], 16))

    with pytest.raises(GraphError, match="layer called 'graph'"):
        prunecli.prune(randomize_(Reserved()), IMAGES, flops=0.3, params=0.3, align=1)


def test_a_forward_without_tensors_is_refused() -> None:
    class Number(Plain):
        def forward(self, x: Tensor) -> float:
            return float(self.head(self.first(x)).sum())

    with pytest.raises(InputError, match="returns no tensor"):
        prunecli.prune(randomize_(Number()), IMAGES, flops=0.5)


class Normed(nn.Module):
    """A token network whose layer norm runs over the channels that are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 32), nn.LayerNorm(32), nn.Linear(32, 10)

    def normed(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.normed(self.first(x.flatten(2).movedim(1, 2)).relu())
        return self.last(tokens.mean(1) if x.sum() < 1e9 else tokens[:, 0])


class HandNormed(Normed):
    def normed(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1)


class Sampled(Plain):
    """Positions are read at the coordinates of a grid."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.first(x).relu()).relu()
        grid = x[:, :2].movedim(1, -1) * 2 - 1
        return self.head(self.third(nn.functional.grid_sample(features, grid, align_corners=False)))


def test_a_norm_over_cut_channels_is_proven_in_a_recorded_forward() -> None:
    result = cut_half(randomize_(Normed()).eval(), IMAGES)
    assert result.report.verified.method == "masked-norm"
    assert widths(result)["first"][1] < 32


def test_a_norm_by_hand_over_cut_channels_stays_whole_in_a_recorded_forward() -> None:
    with pytest.raises(GraphError, match="its cut could not be proven"):
        prunecli.prune(randomize_(HandNormed()).eval(), IMAGES, flops=0.5)


def test_channels_pass_through_a_sampled_grid() -> None:
    result = cut_half(randomize_(Sampled()).eval(), IMAGES)
    assert widths(result)["second"][1] < 16


def test_a_norm_without_weights_follows_the_width() -> None:
    class Instance(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.third(self.norm(self.second(self.first(x)))))

    result = cut_half(randomize_(Instance()).eval(), IMAGES)
    assert result.report.mode == "module"
    assert result.model.norm.num_features == widths(result)["second"][1] < 16


def test_an_attribute_follows_the_width_in_a_recorded_forward() -> None:
    class Remembered(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.width = 16

        def forward(self, x: Tensor) -> Tensor:
            features = self.second(self.first(x).relu()).relu()
            features = features if x.sum() < 1e9 else -features
            return self.fc(self.third(features).relu().mean((2, 3)).view(-1, self.width))

    result = cut_half(randomize_(Remembered()).eval(), IMAGES, flops=0.4, params=0.4, align=1)
    assert result.model.width == widths(result)["third"][1] < 16


class HooksItself(nn.Module):
    """Puts hooks on its layers in its first forward, to hand out what they give."""

    hooked = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1)])
        self.last = nn.ModuleList([nn.Conv2d(16, 4, 1), nn.Conv2d(24, 4, 1)])

    def forward(self, x: Tensor) -> Tensor:
        self.seen: list[Tensor] = []
        if not self.hooked:
            for layer in self.layers:
                layer.register_forward_hook(lambda *given: self.seen.append(given[-1]))
            self.hooked = True
        for layer in self.layers:
            x = layer(x)
        pairs = list(zip(self.seen, self.last, strict=True))
        self.seen = []
        return sum(layer(value) for value, layer in pairs)


def test_hooks_of_a_first_forward_are_taken_off_again():
    model, images = HooksItself().eval(), torch.zeros(1, 3, 8, 8)
    for _ in range(2):
        with attributes_kept(model):
            model(images)
        assert not model.hooked
        assert not any(layer._forward_hooks for layer in model.layers)
    model(images)
