"""The models of timm are recognised by their keys."""

from __future__ import annotations

import sys

import pytest
import torch

from prunecli.architectures.fingerprint import shapes_of
from prunecli.architectures.index import timm_index
from prunecli.architectures.lookup import compute_fingerprint, fingerprint_of, match_timm
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import build_dense
from prunecli.architectures.structure import structure_digest
from prunecli.checkpoint import load
from prunecli.errors import InputError
from tests.support.checkpoints import assert_is_read_as, trained

timm = pytest.importorskip("timm")

SAMPLE = (
    "convnext_nano",
    "deit_tiny_distilled_patch16_224",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "resnet50d",
    "tf_efficientnet_lite0",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_index_agrees_with_a_fresh_build(name):
    """When this fails: python -m prunecli.architectures.make_index timm."""
    known, fresh = fingerprint_of(f"timm/{name}"), compute_fingerprint(f"timm/{name}")
    assert (known.digest, known.free, known.order) == (fresh.digest, fresh.free, fresh.order)
    assert known.sketch == fresh.sketch[: len(known.sketch)]
    assert known.size == fresh.size


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_is_found_among_all_by_its_shapes(name):
    reference = ArchitectureRef(f"timm/{name}", {"num_classes": 37})
    matches = match_timm(shapes_of(build_dense(reference).state_dict()))
    assert all(match.arguments == {"num_classes": 37} for match in matches)
    names = [alias for row in timm_index() for group in row.names for alias in group]
    assert len(names) == len(set(names)) > 1000
    rows = [row for row in timm_index() if any(reference.name in group for group in row.names)]
    assert [[m.name for m in matches]] == [[group[0] for group in row.names] for row in rows]


def test_names_in_one_group_compute_the_same_and_others_do_not():
    groups = {group for row in timm_index() for group in row.names}
    one = next(group for group in groups if "timm/vit_tiny_patch16_224" in group)
    assert "timm/deit_tiny_patch16_224" in one
    torch.manual_seed(0)
    images = torch.randn(1, 3, 224, 224)
    first, second = (timm.create_model(name.removeprefix("timm/")).eval() for name in one[:2])
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.allclose(first(images), second(images), atol=1e-6)
    plain, ported = (
        build_dense(ArchitectureRef(f"timm/{name}"))
        for name in ("mobilenetv3_small_100", "tf_mobilenetv3_small_100")
    )
    assert shapes_of(plain.state_dict()) == shapes_of(ported.state_dict())
    assert structure_digest(plain) != structure_digest(ported)


def state_of(name, **kwargs):
    return trained(timm.create_model(name, num_classes=7, **kwargs))


def test_a_plain_name_is_taken_before_its_port_and_that_is_said(tmp_path):
    model = state_of("mobilenetv3_small_100")
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "m"
    )
    loaded = assert_is_read_as(tmp_path / "m", model, size=64)
    assert loaded.checkpoint.architecture.name == "timm/mobilenetv3_small_100"
    (warning,) = loaded.warnings
    assert "--arch timm/tf_mobilenetv3_small_100" in warning


def test_what_computes_otherwise_is_asked_for_unless_the_file_says_it(tmp_path):
    blurred = state_of("resnetblur50d").state_dict()
    torch.save(blurred, tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_ARCHITECTURE"
    assert "--arch timm/resnet50d or --arch timm/resnetaa50d" in caught.value.hint
    for said in (
        {"arch": "resnetblur50d", "state_dict": blurred},
        {"arch": "timm/resnetblur50d.bt_in1k", "state_dict": blurred},
        {"hyper_parameters": {"model_name": "resnetblur50d"}, "state_dict": blurred},
    ):
        torch.save(said, tmp_path / "m.pt")
        loaded = load(tmp_path / "m.pt")
        assert loaded.checkpoint.architecture.name == "timm/resnetblur50d"
        assert loaded.warnings == ()


def test_the_name_of_torchvision_comes_first_unless_the_file_says_another(tmp_path):
    state = state_of("resnet18").state_dict()
    torch.save(state, tmp_path / "m.pt")
    assert load(tmp_path / "m.pt").checkpoint.architecture.name == "resnet18"
    torch.save({"arch": "resnetblur18", "state_dict": state}, tmp_path / "m.pt")
    assert load(tmp_path / "m.pt").checkpoint.architecture.name == "timm/resnetblur18"


def test_other_names_with_another_normalisation_are_said(tmp_path):
    torch.save(state_of("deit_tiny_patch16_224").state_dict(), tmp_path / "m.pt")
    (warning,) = load(tmp_path / "m.pt").warnings
    assert "timm/deit_tiny_patch16_224 is the same with another normalisation" in warning
    torch.save(
        {"arch": "deit_tiny_patch16_224", "model": state_of("deit_tiny_patch16_224").state_dict()},
        tmp_path / "m.pt",
    )
    loaded = load(tmp_path / "m.pt")
    assert loaded.warnings == ()
    assert loaded.checkpoint.input.mean[0] == pytest.approx(0.485)


def test_without_timm_a_file_is_recognised_and_the_error_says_what_to_install(
    tmp_path, monkeypatch
):
    torch.save(state_of("convnext_nano").state_dict(), tmp_path / "m.pt")
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("timm/convnext_nano",):
        with pytest.raises(InputError, match=name) as caught:
            load(tmp_path / "m.pt")
        assert caught.value.code == "MISSING_EXTRA"
        assert "prunecli[timm]" in caught.value.hint


@pytest.fixture(autouse=True)
def _fresh_models():
    from prunecli.architectures.timm_models import timm_architecture

    timm_architecture.cache_clear()
    yield
    timm_architecture.cache_clear()
