"""A rebuilt network returns what the original did, in the same form and under the same names."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.errors import InputError
from prunecli.graph.emitting.program import build
from prunecli.graph.outputs import Outputs, arranged, structure_of
from tests.support.complaint_networks import conv, fc
from tests.support.weights import randomize_

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = torch.zeros(1, 3, 8, 8)
INPUT = InputSpec(3, 8, 8, (0.0,) * 3, (1.0,) * 3)

Scored = namedtuple("Scored", "logits features")  # noqa: PYI024 - as users write it


@dataclass
class Record:
    logits: Tensor
    features: Tensor | None = None
    extra: Any = None


@dataclass
class ModelOutput(OrderedDict):
    """As that of transformers: fields that are not None are keys too, in order."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self[key] for key in self)


class Baked(nn.Module):
    """A network that is cut in graph mode alone: channels are picked by written positions."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.stem, self.last, self.fc = conv(3, 16), conv(32, 16), fc(16)
        self.form, self.config = form, Record(torch.zeros(1))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        assert labels is None
        x = self.stem(x).relu()
        x = self.last(torch.cat([x, x[:, list(range(16))[::-1]]], 1)).relu().mean((2, 3))
        return self.form(self.fc(x), x.amax(1))


def pruned(form: Any) -> tuple[prunecli.PruneResult, nn.Module]:
    model = randomize_(Baked(form), seed=0).eval()
    result = prunecli.prune(model, IMAGE, flops=0.5, signal="l2", align=1)
    assert result.report.mode == "graph"
    assert result.report.training.verified
    return result, model


FORMS = {
    "a tensor": lambda y, _: y,
    "a tuple": lambda y, f: (y, (f, None)),
    "a list": lambda y, f: [y, [f]],
    "a dict": lambda y, f: {"logits": y, "kind": f, "none": None},
    "a dict with other keys": lambda y, f: {0: y, "f": {1: f}},
    "an ordered dict": lambda y, f: OrderedDict(out=y, aux=[f]),
    "a named tuple": Scored,
    "a named tuple inside": lambda y, f: {"a": [Scored(y, None), {"x": f}]},
}


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in flat(item)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flat(item)]
    return [value]


def form_of(value: Any) -> Any:
    """Return the nesting of an output, with types, names and keys, and shapes for tensors."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return "dict", [(key, form_of(item)) for key, item in value.items()]
    if hasattr(value, "_fields"):
        return type(value).__name__, value._fields, [form_of(item) for item in value]
    if isinstance(value, list | tuple):
        return type(value).__name__, [form_of(item) for item in value]
    return value


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_the_output_is_kept_in_memory_and_in_a_file(name, tmp_path: Path) -> None:
    result, model = pruned(FORMS[name])
    x = torch.randn(3, 3, 8, 8)
    expected = form_of(model(x))
    assert form_of(result.model(x)) == expected
    assert form_of(copy.deepcopy(result.model)(x)) == expected
    prunecli.save(result, tmp_path / "slim.pt", input=INPUT)
    loaded = prunecli.load(tmp_path / "slim.pt")
    assert form_of(loaded(x)) == expected
    for one, other in zip(flat(loaded(x)), flat(result.model(x)), strict=True):
        assert one is other is None or torch.allclose(one, other, atol=1e-6)


def test_a_dataclass_comes_back_with_its_attributes() -> None:
    result, model = pruned(Record)
    found = result.model(torch.randn(2, 3, 8, 8))
    assert found.logits.shape == (2, 5)
    assert found.features.shape == (2,)
    assert found.extra is None
    assert isinstance(model(IMAGE), Record)  # the user's own is as it was


def test_a_model_output_comes_back_with_keys_attributes_and_positions(tmp_path: Path) -> None:
    result, _ = pruned(lambda y, f: ModelOutput(logits=y, hidden_states=(y, f)))
    prunecli.save(result, tmp_path / "slim.pt", input=INPUT)
    for model in (result.model, prunecli.load(tmp_path / "slim.pt")):
        found = model(torch.randn(2, 3, 8, 8))
        assert isinstance(found, Outputs)
        assert list(found) == ["logits", "hidden_states"]
        assert found.logits is found["logits"] is found[0] is found.to_tuple()[0]
        assert found[:1][0] is found.logits
        assert found.loss is None
        assert [tuple(value.shape) for value in found.hidden_states] == [(2, 5), (2,)]
        with pytest.raises(AttributeError):
            _ = found.attentions


def test_a_record_in_module_mode_stays_the_users_own() -> None:
    class Plain(Baked):
        def forward(self, x: Tensor) -> Any:
            x = self.stem(x).relu()
            return self.form(self.fc(self.last(torch.cat([x, x], 1)).mean((2, 3))), x)

    model = randomize_(Plain(lambda y, _: ModelOutput(logits=y)), seed=0).eval()
    result = prunecli.prune(model, IMAGE, flops=0.5, signal="l2", align=1)
    assert result.report.mode == "module"
    assert isinstance(result.model(IMAGE), ModelOutput)
    assert "forward" not in vars(model)


def test_what_a_rebuilt_model_takes_no_more_and_has_no_more_is_said() -> None:
    result, _ = pruned(FORMS["a dict"])
    said = "\n".join(result.report.warnings)
    assert "takes x alone and not labels" in said
    assert "no attribute config" in said


def test_it_is_cut_again_with_its_names() -> None:
    first, _ = pruned(lambda y, f: ModelOutput(logits=y, hidden_states=(f,)))
    second = prunecli.prune(first.model, IMAGE, flops=0.7, signal="l2", align=1)
    assert second.report.verified.max_rel_error < 1e-8
    found = second.model(torch.randn(2, 3, 8, 8))
    assert found.logits.shape == (2, 5)
    assert found.loss is None


def test_only_a_form_that_older_versions_do_not_know_has_the_newer_schema() -> None:
    assert pruned(FORMS["a dict"])[0].program["schema"] == 1
    assert pruned(FORMS["a tuple"])[0].program["schema"] == 1
    assert pruned(FORMS["a list"])[0].program["schema"] == 3


def test_a_file_written_by_an_older_version_gives_tuples_and_dicts() -> None:
    assert arranged({"kind": 1, "rest": [0, [1]]}, ["a", "b"]) == {
        "kind": "b",
        "rest": ("a", ("b",)),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "code", "keys": ["a"], "items": [0]},
        {"kind": "named", "name": "os.system('x')", "keys": ["a"], "items": [0]},
        {"kind": "named", "name": "Fine", "keys": ["__import__"], "items": [0]},
        {"kind": "attributes", "keys": ["a"], "items": [7], "absent": []},
        {"kind": "attributes", "keys": ["a", "b"], "items": [0], "absent": []},
        {"kind": "list"},
        "0",
    ],
)
def test_a_damaged_form_is_refused_when_the_file_is_read(wrong) -> None:
    result, _ = pruned(FORMS["a list"])
    program = {**json.loads(json.dumps(result.program)), "output": wrong}
    with pytest.raises(InputError, match="damaged"):
        build(program, result.model.state_dict())


def test_a_form_goes_to_json_and_back() -> None:
    value = {"a": [0, (1, Outputs({"x": 2}, absent=("y",)))], 3: {"k": 3}}
    structure = json.loads(json.dumps(structure_of(value)))
    assert arranged(structure, [0, 1, 2, 3]) == value
    assert arranged(structure, [0, 1, 2, 3])["a"][1][1].y is None
