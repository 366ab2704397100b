"""Mixed connectivity: blocks that write a part of the slots of their stream."""

from __future__ import annotations

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision import models

import prunecli
from prunecli.architectures.cifar_resnet import cifar_resnet
from prunecli.architectures.reference import InputSpec
from prunecli.budget import Budget
from prunecli.cost.flops import count_flops
from prunecli.errors import InputError, ProofError
from prunecli.graph.emitting.program import build
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.plan import PruningPlan
from prunecli.progress import Clock, silent
from prunecli.proof.prove import prove
from prunecli.pruning.proven_cut import planned_cut, proven
from tests.support.weights import randomize_


def resnet() -> nn.Module:
    return randomize_(cifar_resnet(depth=14), seed=2).eval()


def convnext() -> nn.Module:
    config = models.convnext.CNBlockConfig
    net = models.convnext.ConvNeXt([config(8, 16, 2), config(16, None, 1)], num_classes=5)
    return randomize_(net, seed=2).eval()


def vit() -> nn.Module:
    net = models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24,
        num_classes=5,
    )  # fmt: skip
    return randomize_(net, seed=2).eval()


def image(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def cut(left, keep):
    """Return the cut of what is left that keeps these atoms, made and proven."""
    keep = keep & ~left.unwritten
    widths = np.asarray([int(keep[group.atoms].sum()) for group in left.coupling.groups])
    options = PruneOptions()
    planned = planned_cut(left, keep, widths, whole=(), budget=Budget(()), options=options)
    return proven(left, planned, options, Clock(silent)), widths


def everything(left) -> np.ndarray:
    return np.ones(left.coupling.atom_count, np.bool_)


def resnet_writes():
    model = resnet()
    network = read_network(model, [image(16)])
    assert [block.name for block in network.blocks][:3] == ["layer1.0", "layer1.1", "layer2.0"]
    writes = {"layer1.0": (0, 3, 4, 9), "layer2.0": tuple(range(1, 32, 2)), "layer3.1": (63,)}
    return model, network, writes


def silenced(model: nn.Module, writes) -> nn.Module:
    """Return the dense network with gamma and beta zero at the slots that are not written."""
    result = copy.deepcopy(model)
    with torch.no_grad():
        for name, slots in writes.items():
            norm = result.get_submodule(name).bn2
            gone = sorted(set(range(norm.num_features)) - set(slots))
            norm.weight[gone] = 0
            norm.bias[gone] = 0
    return result


def test_a_block_that_writes_some_slots_is_the_dense_one_with_the_others_silenced() -> None:
    model, network, writes = resnet_writes()
    left = network.without((), writes)
    made, _ = cut(left, everything(left))
    assert made.verified.max_rel_error < 1e-8
    with torch.no_grad():
        expected = silenced(model, writes).double()(image(16).double())
        torch.testing.assert_close(made.model.double()(image(16).double()), expected)
        assert not torch.allclose(model.double()(image(16).double()), expected, atol=1e-3)
    for name, slots in writes.items():
        assert made.model.get_parameter(f"{name}.conv2.weight").shape[0] == len(slots)
        assert made.model.get_parameter(f"{name}.bn2.weight").shape[0] == len(slots)
    assert made.plan.writes == writes
    assert made.plan.mode == "graph"
    assert PruningPlan.from_json(made.plan.to_json()) == made.plan


def test_costs_count_the_narrower_last_layers_exactly() -> None:
    _, network, writes = resnet_writes()
    left = network.without((), writes)
    made, widths = cut(left, everything(left))
    cost, slim = left.cost.cost(widths), made.model
    assert cost["flops"] == count_flops(slim, (image(16)[:1],))
    assert cost["params"] == sum(value.numel() for value in slim.parameters())
    stored = slim.state_dict().values()
    assert cost["bytes"] == sum(value.numel() * value.element_size() for value in stored)
    assert left.cost.dense == network.cost.dense
    widths_of = {"layer1.0": 16, "layer2.0": 32, "layer3.1": 64}
    gone = sum((width - len(writes[name])) * (9 * width + 2) for name, width in widths_of.items())
    # 8 of the slots that padding adds are new with layer2.1, which does not read them before.
    gone += 8 * 9 * 32
    assert network.cost.dense["params"] - cost["params"] == gone


def test_slots_go_with_the_stream_and_deleted_blocks_with_all() -> None:
    _, network, writes = resnet_writes()
    by_name = {block.name: block for block in network.blocks}
    left = network.without([by_name["layer1.1"], by_name["layer3.0"]], writes)
    keep = everything(left)
    (slots,) = left.coupling.tensors["conv1.weight"][0]
    keep[slots[[0, 2, 3, 11]]] = False  # 0 and 3 are written by layer1.0
    made, widths = cut(left, keep)
    assert made.verified.max_rel_error < 1e-8
    assert made.model.get_parameter("layer1.0.conv2.weight").shape[0] == 2
    assert set(made.plan.deleted) == {"layer1.1", "layer3.0"}
    cost = left.cost.cost(widths)
    assert cost["params"] == sum(value.numel() for value in made.model.parameters())


def test_a_wrong_slot_is_seen_by_the_proof() -> None:
    model, network, writes = resnet_writes()
    left = network.without((), writes)
    made, _ = cut(left, everything(left))
    program = copy.deepcopy(dict(made.program))
    (node, *_) = (node for node in program["nodes"] if node["kind"] == "add_at")
    node["indices"] = [0, 3, 5, 9]
    wrong = build(program, made.model.state_dict())
    with pytest.raises(ProofError, match="differs"):
        prove(
            model,
            wrong,
            made.plan.slices,
            made.keep,
            trace=left.trace,
            coupling=left.coupling,
        )


@pytest.mark.parametrize(("make", "side", "slots"), [(convnext, 32, (1, 2, 6)), (vit, 16, (0, 7))])
def test_layer_scale_and_last_linear_layers_write_in_part_too(make, side, slots) -> None:
    model = make()
    network = read_network(model, [image(side)])
    name = network.blocks[1].name
    left = network.without((), {name: slots})
    made, widths = cut(left, everything(left))
    assert made.verified.max_rel_error < 1e-8
    assert left.cost.cost(widths)["params"] == sum(p.numel() for p in made.model.parameters())
    assert left.cost.cost(widths)["params"] < network.cost.dense["params"]


def test_onnx_runtime_and_the_stored_file_give_the_same(tmp_path) -> None:
    _, network, writes = resnet_writes()
    left = network.without((), writes)
    made, _ = cut(left, everything(left))
    spec = InputSpec(3, 16, 16, (0.5,) * 3, (0.5,) * 3)
    path = tmp_path / "slim.onnx"
    prunecli.export(made.model, path, input=spec)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image(16).numpy()})
    with torch.no_grad():
        expected = made.model(image(16))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    prunecli.save(made.model, tmp_path / "slim.pt", input=spec)
    with torch.no_grad():
        torch.testing.assert_close(prunecli.load(tmp_path / "slim.pt")(image(16)), expected)


@pytest.mark.parametrize(
    "writes",
    [{"layer9": (0,)}, {"layer1.0": ()}, {"layer1.0": (3, 1)}, {"layer1.0": (16,)}],
)
def test_slots_that_are_not_there_are_refused(writes) -> None:
    _, network, _ = resnet_writes()
    with pytest.raises(InputError) as caught:
        network.without((), writes)
    assert caught.value.code == "BAD_WRITES"


def test_a_block_that_writes_everything_is_left_as_it_is() -> None:
    _, network, _ = resnet_writes()
    assert network.without((), {"layer1.0": tuple(range(16))}) is network
