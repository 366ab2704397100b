"""Sparse weights in files: they come back bit by bit, smaller, and nobody can fill the memory."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prunecli
from prunecli import verbs
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.provenance import read
from prunecli.budget import make_budget
from prunecli.checkpoint import load, save
from prunecli.checkpoint.compact import BITS, GAPS, VALUES, pack, to_gaps, unpack
from prunecli.errors import GateError, InputError, LoadRefusedError, ProofError
from prunecli.options import ExportOptions, PruneOptions

if TYPE_CHECKING:
    from pathlib import Path

SEED = torch.Generator().manual_seed(0)


def sparse(path: Path, out: Path, sparsity: float | None = 0.9, **options):
    return verbs.prune(
        path,
        output=out,
        budget=None if sparsity is None else make_budget(sparsity=sparsity),
        options=PruneOptions(**{"granularity": "weight", **options}),
    )


# --- packing -------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    bits=st.lists(st.booleans(), min_size=1, max_size=1200),
    thin=st.booleans(),
    kind=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_whatever_the_mask_the_kept_bits_come_back(bits, thin, kind) -> None:
    mask = torch.tensor(bits)
    if thin:
        mask &= torch.rand(len(bits)) < 0.01
    dense = torch.randn(len(bits)).to(kind)
    dense[::3] = -0.0  # a kept weight may be zero, with a sign
    stored, description = pack({"w": dense, "b": dense}, {"w": mask})
    restored, masks = unpack(stored, json.loads(json.dumps(description)), where="here")
    expected = torch.where(mask, dense, torch.zeros((), dtype=kind))
    assert torch.equal(masks["w"], mask)
    assert restored["w"].dtype == kind
    assert torch.equal(restored["w"].view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(restored["b"].view(torch.uint8), dense.view(torch.uint8))


@pytest.mark.parametrize(("density", "places"), [(0.5, BITS), (0.1, GAPS), (0.02, GAPS)])
def test_places_are_stored_as_bits_or_gaps_whichever_is_smaller(density, places) -> None:
    mask = torch.rand(64, 1000, generator=SEED) < density
    stored, _ = pack({"w": torch.randn(64, 1000)}, {"w": mask})
    assert stored.keys() == {"w" + VALUES, "w" + places}
    bits, gaps = -(-mask.numel() // 8), to_gaps(mask.reshape(-1).numpy()).size
    assert stored["w" + places].numel() == min(bits, gaps)


def test_gaps_of_255_and_more_take_further_bytes() -> None:
    mask = np.zeros(1000, np.bool_)
    mask[[0, 255, 511, 800]] = True
    assert to_gaps(mask).tolist() == [0, 254, 255, 0, 255, 33, 199]


# --- damaged and malicious files -----------------------------------------------------------------


def packed() -> tuple[dict, dict]:
    mask = torch.zeros(4, 100, dtype=torch.bool)
    mask[1, 7] = mask[3, 99] = True
    return pack({"w": torch.randn(4, 100)}, {"w": mask})


def damaged(change) -> LoadRefusedError:
    stored, description = packed()
    change(stored, description["tensors"]["w"])
    with pytest.raises(LoadRefusedError) as caught:
        unpack(stored, description, where="x.pt")
    assert caught.value.exit_code == 4
    return caught.value


@pytest.mark.parametrize(
    "shape",
    [[10**12], [2**62, 2**62], [4, 101], [-4, -100], [0], [4.0, 100], "4", [True, 400], None, {}],
)
def test_a_shape_that_does_not_agree_with_what_is_stored_is_refused_before_memory_is_taken(
    shape,
) -> None:
    error = damaged(lambda _, facts: facts.update(shape=shape))
    assert error.code == "CORRUPT_FILE"


def test_a_few_bytes_of_gaps_cannot_stand_for_a_huge_tensor() -> None:
    codes = torch.full((1 << 20,), 255, dtype=torch.uint8)
    codes[-1] = 1
    size = 255 * ((1 << 20) - 1) + 0
    description = {"schema": 1, "tensors": {"w": {"shape": [size], "places": GAPS}}}
    stored = {"w" + VALUES: torch.zeros(1), "w" + GAPS: codes}
    with pytest.raises(LoadRefusedError, match="weights in 1048580 bytes"):
        unpack(stored, description, where="x.pt")


@pytest.mark.parametrize(
    "change",
    [
        lambda s, _: s.update({"w" + VALUES: torch.zeros(3)}),
        lambda s, _: s.update({"w" + VALUES: torch.zeros(1, 2)}),
        lambda s, _: s.update({"w" + VALUES: torch.zeros(2, dtype=torch.int64)}),
        lambda s, _: s.update({"w" + GAPS: s["w" + GAPS].int()}),
        lambda s, _: s.update({"w" + GAPS: s["w" + GAPS][:-1]}),
        lambda s, _: s.update({"w" + GAPS: s["w" + GAPS][:0]}),
        lambda s, _: s.update({"w": torch.zeros(4, 100)}),
        lambda s, _: s.pop("w" + GAPS),
        lambda _, f: f.update(places=BITS),
        lambda _, f: f.update(places="#nothing"),
        lambda _, f: f.update(places=["#gaps"]),
        lambda _, f: f.pop("shape"),
    ],
)
def test_a_damaged_sparse_tensor_is_refused(change) -> None:
    assert damaged(change).code == "CORRUPT_FILE"


def test_a_file_that_masks_what_is_no_weight_ends_in_no_traceback(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint("digits_resnet")
    name = next(name for name in checkpoint.tensors if name.endswith("running_mean"))
    mask = torch.zeros(checkpoint.tensors[name].shape, dtype=torch.bool)
    odd = dataclasses.replace(checkpoint, masks={name: mask})
    save(odd, tmp_path / "odd.pt")
    sparse(tmp_path / "odd.pt", tmp_path / "s.pt", 0.5)
    assert name not in read(tmp_path / "s.pt").checkpoint.masks
    assert verbs.analyze(model=tmp_path / "odd.pt").model.sparsity.weights == 0
    with pytest.raises(InputError) as caught:
        verbs.finetune(tmp_path / "odd.pt", data="digits", output=tmp_path / "t.pt")
    assert caught.value.code == "MASK_MISMATCH"


def test_bits_behind_the_last_weight_are_refused() -> None:
    mask = torch.ones(9, dtype=torch.bool)
    stored, description = pack({"w": torch.randn(9)}, {"w": mask})
    stored["w" + BITS][-1] |= 1
    with pytest.raises(LoadRefusedError, match="behind the last"):
        unpack(stored, description, where="x.pt")


@pytest.mark.parametrize("description", [[], "x", {"schema": 1}, {"schema": 1, "tensors": [1]}, 3])
def test_a_description_that_is_none_is_refused(description) -> None:
    with pytest.raises(LoadRefusedError) as caught:
        unpack({}, description, where="x.pt")
    assert caught.value.code == "CORRUPT_FILE"


def test_a_later_schema_and_a_later_format_name_the_version(tmp_path, digits_checkpoint) -> None:
    with pytest.raises(LoadRefusedError, match="schema 2"):
        unpack({}, {"schema": 2, "tensors": {}}, where="x.pt")
    sparse(digits_checkpoint, tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    assert content["format_version"] == 2
    torch.save({**content, "format_version": 99}, tmp_path / "later.pt")
    with pytest.raises(LoadRefusedError, match="has format 99, and this version reads 1, 2, 3"):
        load(tmp_path / "later.pt")


# --- the road on files ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_what_is_loaded_is_the_dense_network_times_its_mask(
    tmp_path, digits_checkpoint, suffix, granularity
) -> None:
    out = tmp_path / f"sparse{suffix}"
    share = 0.9 if granularity == "weight" else None
    report = sparse(digits_checkpoint, out, share, granularity=granularity)
    dense, stored = read(digits_checkpoint).checkpoint, read(out).checkpoint
    assert report.verified.method == "stored and restored == dense x mask"
    assert report.verified.max_rel_error == 0
    assert report.output == out
    for name, value in dense.tensors.items():
        mask = stored.masks.get(name)
        expected = value if mask is None else torch.where(mask, value, 0.0)
        assert torch.equal(stored.tensors[name], expected)
    found = report.sparsity
    assert sum(int(mask.sum()) for mask in stored.masks.values()) == sum(
        row.kept for row in found.layers if not row.reason
    )
    assert report.cost.after.params == report.cost.before.params - (found.weights - found.kept)
    network = prunecli.load(out)
    assert isinstance(network, type(instantiate(dense)))
    assert not network.training


def test_the_file_really_gets_smaller(tmp_path, shared_dir) -> None:
    path = shared_dir / "checkpoints" / "resnet20.th"
    report = sparse(path, tmp_path / "sparse.pt", 0.9)
    sizes = report.sparsity
    assert (sizes.bytes_before, sizes.bytes_after) == (
        path.stat().st_size, (tmp_path / "sparse.pt").stat().st_size,
    )  # fmt: skip
    assert sizes.bytes_after < 0.25 * sizes.bytes_before
    assert sizes.kept == sizes.weights - round(0.9 * sizes.weights)
    assert report.cost.kept["bytes"] < 0.2


def test_the_same_command_writes_the_same_bytes(tmp_path, digits_checkpoint) -> None:
    one, two = tmp_path / "a" / "s.pt", tmp_path / "b" / "s.pt"
    for out in (one, two):
        out.parent.mkdir()
        sparse(digits_checkpoint, out, 0.8, signal="random", seed=3)
    assert one.read_bytes() == two.read_bytes()


def test_a_dry_run_writes_nothing_and_tells_the_layers(tmp_path, digits_checkpoint) -> None:
    report = verbs.prune(
        digits_checkpoint, output=tmp_path / "s.pt", budget=make_budget(sparsity=0.9),
        options=PruneOptions(granularity="weight"), dry_run=True,
    )  # fmt: skip
    assert (report.output, report.verified) == (None, None)
    assert report.sparsity.sparsity == pytest.approx(0.9, abs=1e-3)
    assert not (tmp_path / "s.pt").exists()


def test_a_file_that_gives_back_something_else_is_not_written(
    tmp_path, digits_checkpoint, monkeypatch
) -> None:
    from prunecli.checkpoint import writing

    def wrong(tensors, masks):
        stored, description = pack(tensors, masks)
        first = next(name for name in stored if name.endswith(VALUES))
        return {**stored, first: stored[first].roll(1)}, description

    monkeypatch.setattr(writing, "pack", wrong)
    with pytest.raises(ProofError) as caught:
        sparse(digits_checkpoint, tmp_path / "s.pt")
    assert caught.value.code == "STORED_WRONG"
    assert list(tmp_path.glob("*s.pt*")) == []


@pytest.mark.parametrize(
    ("budget", "granularity", "code"),
    [
        ({"flops": 0.5}, "weight", "BAD_BUDGET"),
        ({"params": "10k"}, "weight", "BAD_BUDGET"),
        ({"sparsity": 0.5}, "2:4", "BAD_BUDGET"),
        (None, "weight", "BAD_BUDGET"),
        (None, "channel", "NO_BUDGET"),
    ],
)
def test_a_budget_that_weights_do_not_have_is_refused(
    tmp_path, digits_checkpoint, budget, granularity, code
) -> None:
    with pytest.raises(InputError) as caught:
        verbs.prune(
            digits_checkpoint, output=tmp_path / "s.pt",
            budget=make_budget(**budget) if budget else None,
            options=PruneOptions(granularity=granularity),
        )  # fmt: skip
    assert caught.value.code == code
    assert not (tmp_path / "s.pt").exists()


def test_an_infeasible_sparsity_is_a_gate_that_says_what_is_reachable(
    tmp_path, digits_checkpoint
) -> None:
    with pytest.raises(GateError, match="the highest reachable is"):
        sparse(digits_checkpoint, tmp_path / "s.pt", 0.99999)


# --- on from there -------------------------------------------------------------------------------


def test_channels_of_a_sparse_network_are_cut_and_its_zeros_stay(
    tmp_path, digits_checkpoint
) -> None:
    sparse(digits_checkpoint, tmp_path / "s.pt", 0.8)
    report = verbs.prune(
        tmp_path / "s.pt", output=tmp_path / "slim.pt", budget=make_budget(flops=0.6)
    )
    before, after = (read(tmp_path / name).checkpoint for name in ("s.pt", "slim.pt"))
    assert report.verified.max_rel_error < 1e-8
    assert after.masks.keys() == before.masks.keys()
    assert sum(map(torch.numel, after.masks.values())) < sum(
        map(torch.numel, before.masks.values())
    )
    for name, mask in after.masks.items():
        assert not after.tensors[name][~mask].any()
    assert (tmp_path / "slim.pt").stat().st_size < (tmp_path / "s.pt").stat().st_size


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mobilenet"])
def test_weights_of_a_cut_network_are_zeroed(tmp_path, make_checkpoint, name) -> None:
    save(make_checkpoint(name), tmp_path / "m.pt")
    verbs.prune(tmp_path / "m.pt", output=tmp_path / "cut.pt", budget=make_budget(flops=0.6))
    report = sparse(tmp_path / "cut.pt", tmp_path / "both.pt", 0.7)
    stored = read(tmp_path / "both.pt").checkpoint
    assert report.verified.max_rel_error == 0
    assert stored.plan is not None
    zero = sum(int((~mask).sum()) for mask in stored.masks.values())
    assert zero == round(0.7 * report.sparsity.weights)
    assert [step["sha256"] for step in stored.metadata["history"]]


def test_a_network_in_graph_mode_is_zeroed_and_restored(tmp_path, digits_checkpoint) -> None:
    dense = read(digits_checkpoint).checkpoint
    prunecli.save(instantiate(dense), tmp_path / "graph.pt", input=dense.input)
    report = sparse(tmp_path / "graph.pt", tmp_path / "s.pt", 0.5, allocation="lamp")
    assert report.verified.max_rel_error == 0
    assert read(tmp_path / "s.pt").checkpoint.architecture.name == "graph"
    direct = sparse(digits_checkpoint, tmp_path / "d.pt", 0.5, allocation="lamp")
    assert report.sparsity.layers == direct.sparsity.layers


def test_analyze_and_export_tell_the_zeros(tmp_path, digits_checkpoint) -> None:
    sparse(digits_checkpoint, tmp_path / "s.pt", 0.75)
    found = verbs.analyze(model=tmp_path / "s.pt").model.sparsity
    assert found.sparsity == pytest.approx(0.75, abs=1e-3)
    assert all(row.kept < row.weights for row in found.layers)
    report = verbs.export(
        tmp_path / "s.pt", output=tmp_path / "s.onnx", options=ExportOptions(benchmark=False)
    )
    assert any("75.0% of the weights are zero; ONNX" in note for note in report.warnings)
    assert report.parity.max_rel_error < 1e-4
    assert verbs.analyze(model=digits_checkpoint).model.sparsity is None


def test_masks_survive_the_python_api(tmp_path) -> None:
    from torch import nn

    from prunecli.architectures.reference import InputSpec

    spec = InputSpec(3, 8, 8, (0.5,) * 3, (0.5,) * 3)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    result = prunecli.sparsify(model, torch.randn(2, 3, 8, 8), sparsity=0.9)
    prunecli.save(result, tmp_path / "m.pt", input=spec)
    stored = read(tmp_path / "m.pt").checkpoint
    assert stored.masks.keys() == {"0.weight", "3.weight"}
    restored = prunecli.load(tmp_path / "m.pt")
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(restored(x), result.model(x))


def test_loading_2_4_weights_for_sparse_units_says_why_it_cannot(
    tmp_path, digits_checkpoint
) -> None:
    sparse(digits_checkpoint, tmp_path / "s.pt", None, granularity="2:4")
    with pytest.raises(InputError, match="no linear layer can run sparse"):
        prunecli.load(tmp_path / "s.pt", semi_structured=True)
