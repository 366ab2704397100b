"""What of a program depends on which channels are kept, and becomes data."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.errors import GraphError
from prunecli.graph.emitting.emit import emit, emit_some, following_nodes
from prunecli.methods.dynamic.constants import Constants
from prunecli.methods.dynamic.groups import drawn_keep, probed, whole_groups
from prunecli.methods.dynamic.slicing import Slicer, put_back_, taken
from prunecli.network.traced import Network, read_network
from tests.support.complaint_networks import Net, conv, fc
from tests.support.samples import sample
from tests.support.weights import randomize_

IMAGE = torch.zeros(2, 3, 8, 8)


def picked() -> nn.Module:
    """Return a network that rolls, picks, skips, pads, splits and joins its channels."""

    def forward(net, x):
        x = net.norm(net.stem(x)).relu()
        first, second = net.wide(x).split([10, 14], 1)
        x = torch.cat([x.roll(3, 1), x[:, net.order], x[:, ::2], x.flip(1)], 1)
        y = functional.pad(first.sigmoid(), (0, 0, 0, 0, 3, 5)) + net.other(second.relu())
        x = functional.max_pool2d(net.last(x).relu() + y[:, 1:17], 2)
        return net.fc(net.hidden(x.view(-1, 256)).relu())

    net = Net(
        forward, stem=conv(3, 16), norm=nn.BatchNorm2d(16), wide=conv(16, 24), last=conv(56, 16),
        other=conv(14, 18), hidden=nn.Linear(256, 16), fc=fc(16),
    )  # fmt: skip
    net.register_buffer("order", torch.randperm(16, generator=torch.Generator().manual_seed(0)))
    return randomize_(net, seed=0).eval()


def shuffled() -> nn.Module:
    def forward(net, x):
        x = net.stem(x).relu()
        n, c, h, w = x.shape
        x = x.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        return net.fc(net.grouped(x).relu().mean((2, 3)))

    grouped = nn.Conv2d(16, 24, 3, groups=4)
    return randomize_(Net(forward, stem=conv(3, 16), grouped=grouped, fc=fc(24)), seed=0).eval()


NETWORKS = {"picked": picked, "shuffled": shuffled}


def network_of(name: str) -> Network:
    if name in NETWORKS:
        return read_network(NETWORKS[name](), [IMAGE])
    return read_network(sample(name), [torch.zeros(2, 1, 8, 8)])


def half(network: Network) -> np.ndarray:
    """Return half of the width of every group that can be chosen from."""
    reasons = whole_groups(network)
    return np.asarray([
        group.width if group.name in reasons else max(group.width // 2, 1)
        for group in network.coupling.groups
    ])  # fmt: skip


def chosen_from(network: Network) -> np.ndarray:
    dense = network.cost.dense_widths
    return np.repeat(half(network) < dense, dense)


ALL = [*NETWORKS, "digits_resnet", "digits_mobilenet"]


@pytest.mark.parametrize("name", ALL)
def test_the_rest_of_a_program_does_not_depend_on_which_channels_are_kept(name):
    network = network_of(name)
    trace, coupling = network.trace, network.coupling
    random, following, programs = np.random.default_rng(0), following_nodes(trace), []
    for _ in range(4):
        keep = drawn_keep(coupling.groups, half(network), random)
        entries = {entry["name"]: entry for entry in emit(trace, coupling, keep)["nodes"]}
        some = emit_some(trace, coupling, keep, following)
        read = {name: entry for name, entry in some.items() if name in entries}
        assert read == {name: entries[name] for name in read}
        assert all(some[name]["kind"] == "tensor" for name in some.keys() - read.keys())
        programs.append({name: entry for name, entry in entries.items() if name not in some})
    assert all(program == programs[0] for program in programs)
    assert len(programs[0]) > 5
    everything = emit_some(trace, coupling, keep, {node.name for node in trace.graph.nodes})
    assert all(everything[name] == entry for name, entry in entries.items())


@pytest.mark.parametrize("name", ALL)
def test_a_network_takes_over_the_channels_of_any_other_of_its_widths(name):
    network = network_of(name)
    coupling, widths = network.coupling, half(network)
    assert (widths < network.cost.dense_widths).any()
    random = np.random.default_rng(1)
    keep = drawn_keep(coupling.groups, widths, random)
    constants = Constants(network, keep, chosen_from(network))
    module, _ = network.graph_network(keep)
    constants.free_(module)
    follower = copy.deepcopy(module)
    shape = (3, 3, 8, 8) if name in NETWORKS else (3, 1, 8, 8)
    images, changes = torch.randn(shape, generator=torch.Generator().manual_seed(0)), 0
    for _ in range(5):
        fresh, _ = network.graph_network(keep)
        for slim in (module, follower):
            slim.load_state_dict(fresh.state_dict())
            with torch.no_grad():
                assert torch.equal(slim(images), fresh(images))
        keep = drawn_keep(coupling.groups, widths, random)
        changes += bool(constants.check(keep))
        constants.follow_(keep, [module, follower])
        assert not constants.check(keep)
    assert (changes > 0) == (name in {"picked", "digits_resnet"})


def test_a_program_with_other_operators_is_refused():
    network = network_of("picked")
    groups = network.coupling.groups
    random = np.random.default_rng(0)
    keep = drawn_keep(groups, half(network), random)
    constants = Constants(network, keep, chosen_from(network))
    with pytest.raises(GraphError, match="depends on which channels are kept") as caught:
        constants.check(np.ones(network.coupling.atom_count, np.bool_))
    assert caught.value.code == "DYNAMIC_STRUCTURE"


def test_probing_finds_what_depends_on_the_choice():
    network = network_of("digits_resnet")
    constants = probed(network, half(network))
    random = np.random.default_rng(5)
    for _ in range(3):
        constants.check(drawn_keep(network.coupling.groups, half(network), random))


@pytest.mark.parametrize("name", ["digits_resnet", "picked"])
def test_slices_are_those_of_a_cut_and_go_back_to_their_place(name):
    network = network_of(name)
    coupling = network.coupling
    keep = drawn_keep(coupling.groups, half(network), np.random.default_rng(2))
    at = Slicer(coupling, chosen_from(network)).positions(keep, torch.device("cpu"))
    slices = slices_of(coupling, keep)
    assert at.keys() == slices.keys()
    for tensor, dims in slices.items():
        whole = network.tensors[tensor]
        slim = taken(whole, at[tensor])
        assert torch.equal(slim, cut_tensor(whole, dims))
        ruined = torch.full_like(whole, 7.0)
        put_back_(ruined, at[tensor], slim)
        assert torch.equal(taken(ruined, at[tensor]), slim)
        assert int((ruined != 7.0).sum()) == int((slim != 7.0).sum()) > 0
