"""Networks under other names are read by the order of their shapes, when somebody says so."""

from __future__ import annotations

import pytest
import torch
import torchvision

from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import load
from prunecli.checkpoint.order import match_by_order
from prunecli.errors import InputError
from tests.support.checkpoints import assert_is_read_as, trained


@pytest.fixture(scope="module")
def model():
    return trained(torchvision.models.mobilenet_v3_small(num_classes=7))


@pytest.fixture(scope="module")
def renamed(model):
    return {
        f"net.m{i:03}.{k.rpartition('.')[2]}": v
        for i, (k, v) in enumerate(model.state_dict().items())
    }


def test_a_file_under_other_names_is_a_guess_that_is_asked_for(renamed, tmp_path):
    torch.save(renamed, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"other names .* mobilenet_v3_small") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_ARCHITECTURE"
    assert "--arch mobilenet_v3_small" in caught.value.hint


def test_with_its_architecture_it_is_read_in_order_and_that_is_said(model, renamed, tmp_path):
    torch.save(renamed, tmp_path / "m.pt")
    loaded = assert_is_read_as(tmp_path / "m.pt", model, size=64, architecture="mobilenet_v3_small")
    assert loaded.checkpoint.architecture.kwargs == {"num_classes": 7}
    assert "read in their order" in loaded.warnings[0]


def test_weights_in_another_order_are_not_read(renamed, tmp_path):
    names = list(renamed)
    torch.save({name: renamed[name] for name in reversed(names)}, tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt", architecture="mobilenet_v3_small")
    assert caught.value.code == "ARCHITECTURE_MISMATCH"


def test_the_published_weights_of_a_lite_network_are_those_of_timm(shared_dir):
    """What timm's network computes with the same tensors, put into it by hand."""
    timm = pytest.importorskip("timm")
    path = shared_dir / "checkpoints" / "efficientnet-lite0.pth"
    with pytest.raises(InputError, match="tf_efficientnet_lite0") as caught:
        load(path)
    assert "--arch timm/tf_efficientnet_lite0" in caught.value.hint
    loaded = load(path, architecture="timm/tf_efficientnet_lite0")
    module = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(path, weights_only=True)
    module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=True)))
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(module(images), instantiate(loaded.checkpoint)(images), atol=1e-5)


EXPECTED = {"attn.q.weight": (4, 4), "attn.k.weight": (4, 4), "fc.weight": (2, 4)}


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (("a.q.weight", "a.k.weight", "out.weight"), ()),
        (("a.first.weight", "a.other.weight", "out.weight"), (("attn.q", "attn.k"),)),
        (("a.lin1.weight", "a.lin2.weight", "out.weight"), ()),
        (("a.lin2.weight", "a.lin1.weight", "out.weight"), (("attn.q", "attn.k"),)),
    ],
)
def test_equal_neighbours_that_no_name_tells_apart_are_doubtful(names, doubtful):
    found = dict(zip(names, EXPECTED.values(), strict=True))
    ordered = match_by_order(found, EXPECTED)
    assert ordered.doubtful == doubtful
    assert list(ordered.renamed.values()) == list(EXPECTED)


def test_other_kinds_of_tensors_are_never_matched():
    assert match_by_order({"a.gamma": (4,)}, {"a.weight": (4,)}) is None
    assert match_by_order({"a.weight": (4,)}, {"a.weight": (5,)}) is None
    assert match_by_order({}, {"a.weight": (5,)}) is None
