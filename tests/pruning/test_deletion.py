"""`--delete-blocks`: which blocks go, what is written of it, and what is refused."""

from __future__ import annotations

import copy
import io
import json

import numpy as np
import onnxruntime
import pytest
import torch
from rich.console import Console
from torch import fx, nn
from torch.nn import functional

import prunecli
from prunecli import verbs
from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.budget import make_budget
from prunecli.checkpoint import load
from prunecli.errors import GraphError, InputError
from prunecli.evaluation.batches import Images
from prunecli.graph.coupling.groups import STAYS
from prunecli.graph.coupling.matching import atoms_in
from prunecli.least_squares import equations
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.plan import PruningPlan
from prunecli.pruning.deletion import THIN, inner_share
from prunecli.repair import repair_
from prunecli_cli.tables import view
from tests.support.command_line import envelope
from tests.support.weights import randomize_

IMAGE = torch.zeros(2, 3, 16, 16)


class Residual(nn.Module):
    """A stem, three blocks of one shape, and a classifier."""

    def __init__(self, *, linear: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(8, 16, 3, padding=1) for _ in range(3))
        self.up = nn.ModuleList(nn.Conv2d(16, 8, 3, padding=1) for _ in range(3))
        self.fc = nn.Linear(8, 5)
        self.inner = nn.Identity() if linear else nn.ReLU()

    def forward(self, x):
        x = self.stem(x)
        for down, up in zip(self.down, self.up, strict=True):
            x = x + up(self.inner(down(x)))
        return self.fc(x.relu().mean((2, 3)))


def residual() -> nn.Module:
    return randomize_(Residual(), seed=3).eval()


def images(model: nn.Module, count: int = 64):
    """Images with the labels that a model gives them."""
    pixels = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = model(pixels).argmax(1)
    return lambda: list(zip(pixels.split(32), labels.split(32), strict=True))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "resnet20.pt"
    torch.save(randomize_(cifar_resnet(depth=20), seed=1).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def written(checkpoint):
    """A cut that needs most of the blocks gone, from files alone."""
    output = checkpoint.parent / "slim.pt"
    report = verbs.prune(
        checkpoint,
        output=output,
        budget=make_budget(flops=0.02),
        options=PruneOptions(align=1, delete_blocks=True),
        command="prunecli prune resnet20.pt --flops 0.02 --align 1 --delete-blocks",
    )
    return output, report


# --- which blocks go -----------------------------------------------------------------------------


def least_loss(model: nn.Module, batches) -> float:
    """The cross-entropy at the best of many temperatures, by definition."""
    pixels, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    with torch.no_grad():
        logits = model(pixels)
    temperatures = torch.logspace(-2, 8, 41, base=2)
    return min(float(functional.cross_entropy(logits / by, labels)) for by in temperatures)


def test_with_images_blocks_are_tried_by_their_loss_and_go_where_that_gets_less() -> None:
    model = residual()
    with torch.no_grad():  # next to nothing, but the uniform allocation keeps half of it
        model.up[1].weight.mul_(1e-3)
        model.up[1].bias.zero_()
    batches, price = images(model), {}
    for at in range(3):
        silenced = copy.deepcopy(model)
        nn.init.zeros_(silenced.up[at].weight)
        nn.init.zeros_(silenced.up[at].bias)
        price[f"up.{at}"] = least_loss(silenced, batches)  # all three cost the same
    result = prunecli.prune(
        model,
        IMAGE,
        flops=0.5,
        align=1,
        batches=batches,
        delete_blocks=True,
    )
    blocks = result.report.blocks
    assert blocks.found == 3
    tried = [trial.deleted for trial in blocks.trials]
    assert tried[0] == ()
    assert [names[-1] for names in tried[1:]] == sorted(price, key=price.get)[: len(tried) - 1]
    losses = {trial.deleted: trial.score.calibrated for trial in blocks.trials}
    chosen = tuple(block.name for block in blocks.deleted)
    assert "up.1" in chosen
    assert set(min(losses, key=losses.get)) == set(chosen)
    assert losses[()] > min(losses.values())
    # What comes out is what the best trial was.
    assert least_loss(result.model, batches) == pytest.approx(min(losses.values()), rel=1e-3)
    assert not any(name.startswith(chosen) for name in result.model.state_dict())
    assert result.report.cost.kept["flops"] <= 0.5


def test_without_images_thin_blocks_go_and_the_budget_is_handed_out_again() -> None:
    model = residual()
    with torch.no_grad():  # greedy by size takes the channels of this block first
        model.down[2].weight.mul_(1e-3)
        model.down[2].bias.zero_()
    options = {"flops": 0.6, "allocation": "greedy", "align": 1}
    kept = prunecli.prune(model, IMAGE, **options, dry_run=True)
    network = read_network(model, [IMAGE])
    widths = np.asarray([group.after for group in kept.report.groups])
    shares = {block.name: inner_share(network, block, widths) for block in network.blocks}
    assert [name for name, share in shares.items() if share <= THIN] == ["up.2"]
    result = prunecli.prune(model, IMAGE, **options, delete_blocks=True)
    assert [block.name for block in result.report.blocks.deleted] == ["up.2"]
    assert result.report.blocks.measured == "widths"
    left = {group.name: group.after for group in result.report.groups}
    assert left["down.2"] == 0
    before = {group.name: group.after for group in kept.report.groups}
    assert sum(left.values()) > sum(before.values()) - before["down.2"]
    assert 0.55 < result.report.cost.kept["flops"] <= 0.6


def test_a_budget_that_no_widths_reach_is_reached_without_blocks() -> None:
    model = residual()
    result = prunecli.prune(model, IMAGE, flops=0.05, min_width=4, align=4, delete_blocks=True)
    assert result.report.blocks.deleted
    assert result.report.cost.kept["flops"] <= 0.05
    assert result.report.cost.after.params == sum(p.numel() for p in result.model.parameters())


def test_with_images_too_blocks_go_until_the_budget_can_be_reached() -> None:
    model = residual()
    result = prunecli.prune(
        model, IMAGE, flops=0.2, min_width=8, align=8, batches=images(model), delete_blocks=True
    )
    first, *others = result.report.blocks.trials
    assert first.score is None
    assert "cannot go down" in first.problem
    assert others[-1].score is not None
    assert result.report.cost.kept["flops"] <= 0.2


def test_only_has_to_name_the_layers_of_a_block() -> None:
    options = {"flops": 0.8, "min_width": 8, "delete_blocks": True, "dry_run": True}
    thin = prunecli.prune(residual(), IMAGE, only=["up.0", "down.0"], **options)
    assert thin.report.blocks.found == 3
    with pytest.raises(GraphError, match="0 of 3 residual blocks"):
        prunecli.prune(residual(), IMAGE, only=["down.0"], **options)


def test_excluded_layers_keep_their_blocks() -> None:
    model = residual()
    result = prunecli.prune(
        model, IMAGE, flops=0.3, align=1, exclude=["up.0"], delete_blocks=True, min_width=8,
    )  # fmt: skip
    assert "up.0" not in {block.name for block in result.report.blocks.deleted}
    with pytest.raises(GraphError, match="0 of 3 residual blocks") as caught:
        prunecli.prune(model, IMAGE, flops=0.5, exclude=["up.*"], delete_blocks=True)
    assert caught.value.code == "NO_BLOCKS"


def test_nothing_deleted_is_said_with_the_number_of_blocks() -> None:
    result = prunecli.prune(residual(), IMAGE, flops=0.7, delete_blocks=True)
    assert result.report.blocks.deleted == ()
    assert any(
        "no block was deleted: each of 3 residual blocks" in warning
        for warning in result.report.warnings
    )
    assert result.plan.deleted == {}


def test_atoms_of_what_is_left_are_those_of_the_same_positions() -> None:
    network = read_network(randomize_(cifar_resnet(depth=14), seed=1).eval(), [IMAGE])
    left = network.without([network.blocks[at] for at in (0, 2, 3)])
    found = atoms_in(network.coupling, left.coupling)
    assert (found != STAYS).all()
    for name, dims in left.coupling.tensors.items():
        for dim, atoms in dims.items():
            free = (atoms != STAYS).all(0)
            whole = network.coupling.tensors[name][dim]
            assert (found[atoms[0, free]] == whole[0, free]).all()


# --- refusals ------------------------------------------------------------------------------------


def test_a_network_without_blocks_is_told_so_with_the_number() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 5))
    with pytest.raises(GraphError, match="0 residual blocks can be deleted") as caught:
        prunecli.prune(randomize_(model, seed=1).eval(), IMAGE, flops=0.5, delete_blocks=True)
    assert caught.value.code == "NO_BLOCKS"
    assert "leave --delete-blocks out" in caught.value.hint


@pytest.mark.parametrize(
    "more",
    [{"dead": True}, {"granularity": "weight", "sparsity": 0.5}],
)
def test_what_cannot_go_with_deleted_blocks_is_refused_before_any_work(more) -> None:
    with pytest.raises(InputError):
        prunecli.prune(residual(), IMAGE, **more, delete_blocks=True)


def test_dead_channels_go_first_and_then_blocks() -> None:
    model = residual()
    with torch.no_grad():
        model.down[0].weight[[1, 5, 9]] = 0
        model.down[0].bias[[1, 5, 9]] = 0
        model.down[1].weight *= 1e-3
    result = prunecli.prune(
        model, IMAGE, flops=0.2, allocation="greedy", dead=True, delete_blocks=True, align=1
    )
    assert result.report.dead.removable >= 3
    assert result.report.blocks.deleted
    assert result.report.cost.kept["flops"] <= 0.2
    assert result.report.verified.max_rel_error < 1e-9
    assert not set(result.plan.keep.get("down.0", ())) & {1, 5, 9}


# --- files ---------------------------------------------------------------------------------------


def test_the_plan_names_the_blocks_and_older_plans_name_none(written) -> None:
    _, report = written
    deleted = report.plan["deleted"]
    assert set(deleted) == {block.name for block in report.blocks.deleted}
    assert all(tensors for tensors in deleted.values())
    plan = PruningPlan.from_json(json.loads(json.dumps(report.plan)))
    assert plan.to_json() == report.plan
    older = {key: value for key, value in report.plan.items() if key != "deleted"}
    assert PruningPlan.from_json(older).deleted == {}


def test_the_file_is_smaller_loads_without_the_class_and_is_what_was_proven(
    checkpoint, written
) -> None:
    output, report = written
    assert report.verified.method == "consumer-zero, deleted blocks zeroed"
    assert report.mode == "graph"
    assert output.stat().st_size < 0.2 * checkpoint.stat().st_size
    model = prunecli.load(output)
    assert isinstance(model, fx.GraphModule)
    names = set(model.state_dict())
    for block in report.blocks.deleted:
        assert not any(name.startswith(f"{block.name}.") for name in names)
    # The dense network with the tensors of the plan zeroed, and every weight that reads a removed
    # channel: built from the plan in the file alone.
    plan = load(output).checkpoint.plan
    dense = cifar_resnet(depth=20)
    dense.load_state_dict(torch.load(checkpoint))
    dense = dense.eval().double()
    with torch.no_grad():
        for tensors in plan.deleted.values():
            for name in tensors:
                dense.get_parameter(name).zero_()
        for name, dims in plan.slices.items():
            if 1 in dims:
                weight = dense.get_parameter(name)
                gone = sorted(set(range(weight.shape[1])) - set(dims[1]))
                weight[:, gone] = 0
        pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()
        torch.testing.assert_close(model.double()(pixels), dense(pixels), rtol=1e-8, atol=1e-8)


def test_the_report_counts_what_the_written_network_has(written) -> None:
    output, report = written
    model = prunecli.load(output)
    after = report.cost.after
    assert after.params == sum(value.numel() for value in model.parameters())
    stored = model.state_dict().values()
    assert after.bytes == sum(value.numel() * value.element_size() for value in stored)
    gone = {layer for block in report.blocks.deleted for layer in block.layers}
    assert gone == {layer.name for layer in report.layers if layer.kept == 0}
    assert sum(layer.flops_kept for layer in report.layers) <= after.flops
    assert report.cost.kept["flops"] == after.flops / report.cost.before.flops <= 0.02


def test_onnx_runtime_gives_what_the_cut_network_gives(written, tmp_path) -> None:
    output, _ = written
    model = prunecli.load(output)
    path = tmp_path / "slim.onnx"
    prunecli.export(model, path, input=load(output).checkpoint.input)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(pixels).numpy(), rtol=1e-3, atol=1e-4)


def test_a_network_without_blocks_is_cut_again_and_keeps_their_names(written, tmp_path) -> None:
    output, report = written
    again = verbs.prune(
        output,
        output=tmp_path / "again.pt",
        budget=make_budget(flops=0.6),
        options=PruneOptions(align=1),
    )
    plan = load(again.output).checkpoint.plan
    assert plan.deleted == {
        name: tuple(tensors) for name, tensors in report.plan["deleted"].items()
    }
    assert again.cost.kept["flops"] <= 0.6


def test_the_command_says_which_blocks_went(checkpoint, capsys, tmp_path) -> None:
    words = (
        "prune", str(checkpoint), "--flops", "0.02", "--align", "1", "--delete-blocks",
        "--out", str(tmp_path / "slim.pt"),
    )  # fmt: skip
    _, told = envelope(capsys, *words, "--report", str(tmp_path / "page.html"))
    data = told["data"]
    names = [block["name"] for block in data["blocks"]["deleted"]]
    assert names == list(data["plan"]["deleted"])
    page = (tmp_path / "page.html").read_text()
    assert f"{len(names)} of 9 residual blocks" in page


# --- repair --------------------------------------------------------------------------------------


def test_least_squares_makes_up_for_a_deleted_block(monkeypatch) -> None:
    """The next block can do what the deleted one did, for both are linear: nothing is lost.

    A rectifier stands between it and the head, so that the head alone could not.
    """
    monkeypatch.setitem(equations.NormalEquations.solve.__kwdefaults__, "ridge", 1e-12)
    model = randomize_(Residual(linear=True), seed=3).eval()
    with torch.no_grad():  # pointwise maps: borders would differ otherwise
        for layer in (*model.down, *model.up):
            centre = layer.weight[:, :, 1:2, 1:2].clone()
            layer.weight.zero_()
            layer.weight[:, :, 1:2, 1:2] = centre
    network = read_network(model, [IMAGE])
    left = network.without([network.blocks[1]])
    whole = np.ones(left.coupling.atom_count, np.bool_)
    slim, _ = left.graph_network(whole)
    batches = images(model)
    pixels = torch.cat([inputs for inputs, _ in batches()])
    with torch.no_grad():
        wanted = model(pixels)
        assert not torch.allclose(slim(pixels), wanted, atol=1e-2)
    report = repair_(
        slim,
        left,
        PruningPlan("", {}, {}, mode="graph"),
        whole,
        names=("lstsq",),
        images=Images(batches),
    )
    assert report.steps[0].accuracy == 1.0  # the labels are those of the whole dense network
    assert report.steps[-1].layers == 3  # both layers of the last block, and the head
    with torch.no_grad():
        torch.testing.assert_close(slim(pixels), wanted, rtol=1e-3, atol=1e-3)


def test_batch_norms_behind_a_deleted_block_are_estimated_anew() -> None:
    model = randomize_(cifar_resnet(depth=8), seed=1).eval()
    network = read_network(model, [IMAGE])
    left = network.without([network.blocks[1]])
    whole = np.ones(left.coupling.atom_count, np.bool_)
    slim, _ = left.graph_network(whole)
    reference = copy.deepcopy(slim)
    batches = images(model)
    report = repair_(
        slim, left, PruningPlan("", {}, {}, mode="graph"), whole, names=("bn",),
        images=Images(batches),
    )  # fmt: skip
    assert report.steps[-1].layers == 2
    changed = {
        name.rpartition(".")[0]
        for name, value in slim.state_dict().items()
        if not torch.equal(value, reference.state_dict()[name])
    }
    assert changed == {"layer3.0.bn1", "layer3.0.bn2"}
    # Of the first norm behind it the mean is that of what it reads.
    read = {}
    slim.layer3._modules["0"].bn1.register_forward_pre_hook(
        lambda _, given: read.update(x=given[0])
    )
    with torch.no_grad():
        slim(torch.cat([inputs for inputs, _ in batches()]))
    mean = read["x"].mean((0, 2, 3))
    torch.testing.assert_close(
        slim.state_dict()["layer3.0.bn1.running_mean"], mean, rtol=1e-4, atol=1e-5
    )


def test_the_tables_of_a_cut_name_its_blocks(written) -> None:
    console = Console(width=200, file=io.StringIO())
    for part in view(written[1], rows=10):
        console.print(part)
    names = [block.name for block in written[1].blocks.deleted]
    shown = console.file.getvalue()
    assert f"{len(names)} of 9: {', '.join(names)}" in shown
