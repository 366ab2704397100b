"""What an artefact from a stranger must not do: call code, fill the memory, end in a traceback."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.artefacts.dense import dense_network
from prunecli.checkpoint import Checkpoint
from prunecli.cutting.surgery import cut_module
from prunecli.errors import InputError
from prunecli.options import LoadOptions
from prunecli.plan import PruningPlan, parse_indices

PLAN = {
    "schema": 1, "fingerprint": "", "mode": "module", "signal": "", "allocation": "",
    "budget": {}, "cost_before": {}, "cost_after": {}, "seed": 0, "keep": {}, "slices": {},
}  # fmt: skip


def test_the_dense_network_that_a_file_names_is_not_called_unless_the_user_names_it_too(
    tmp_path,
) -> None:
    marker = tmp_path / "made"
    checkpoint = Checkpoint(
        architecture=ArchitectureRef("graph"),
        tensors={},
        input=InputSpec(1, 4, 4, (0.0,), (1.0,)),
        metadata={"dense": {"name": "os:mkdir", "kwargs": {"path": str(marker)}}},
    )
    for load in (None, LoadOptions(), LoadOptions(architecture="graph")):
        warnings: list[str] = []
        assert dense_network(checkpoint, None, load, warnings) is None
        assert "os:mkdir" in warnings[0]
    assert not marker.exists()
    with pytest.raises(InputError):
        dense_network(checkpoint, None, LoadOptions(architecture="os:mkdir"), [])
    assert marker.exists()


@pytest.mark.parametrize("text", ["0-99999999999", "5-2", "3,1", "1,1", "-1", "a", "0-3-5", "1,,2"])
def test_indices_that_no_dimension_has_are_refused_and_not_written_out(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_indices(text)
    with pytest.raises(InputError) as caught:
        PruningPlan.from_json({**PLAN, "slices": {"weight": {"0": text}}})
    assert caught.value.code == "BAD_PLAN"


@pytest.mark.parametrize(
    "slices",
    [{"nope": {0: (0,)}}, {"nope": {-1: (0,)}}, {"nope": {}}, {"weight": {-1: (0,)}},
     {"weight": {2: (0,)}}, {"weight": {0: (4,)}}, {"weight": {0: ()}}],
)  # fmt: skip
def test_a_plan_that_does_not_fit_is_refused_by_name(slices) -> None:
    with pytest.raises(InputError) as caught:
        cut_module(nn.Linear(3, 4), slices)
    assert caught.value.code == "PLAN_MISMATCH"
    assert torch.equal(
        cut_module(nn.Linear(3, 4), {"weight": {0: (0, 3)}, "bias": {0: (0, 3)}}).weight.isnan(),
        torch.zeros(2, 3, dtype=torch.bool),
    )
