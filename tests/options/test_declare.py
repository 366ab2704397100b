"""An option is declared once: its field holds the default, the help and what it needs."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import prunecli
from prunecli import options as all_options
from prunecli.errors import InputError
from prunecli.options import (
    METHOD_DEFAULTS,
    FinetuneOptions,
    LatencyOptions,
    PruneOptions,
    TrainingOptions,
)
from prunecli.options.declare import (
    REQUIRED,
    Needs,
    assembled,
    check_effect,
    chosen,
    declared,
    excluded_by,
    group,
    needs,
    option,
    values_of,
)

KINDS = [kind for kind in vars(all_options).values() if dataclasses.is_dataclass(kind)]
WHOLE = [kind for kind in KINDS if kind not in (TrainingOptions, LatencyOptions)]


@dataclass(frozen=True)
class Inner:
    size: int = option(3, "How large.")
    depth: int = option(1, "How deep.", flags="--inner-depth -d")


@dataclass(frozen=True)
class Outer:
    path: str = option(REQUIRED, "Where.")
    names: tuple[str, ...] = option((), "Which.")
    way: str = option("short", "How.")
    inner: Inner = group(Inner, needs("way", "long"))
    alone: bool = option(False, "Without names.", needs=(excluded_by("names"),))
    kept: int = 7


def test_groups_are_flattened_and_an_option_is_named_as_its_first_flag():
    found = {known.name: known for known in declared(Outer)}
    assert list(found) == ["path", "names", "way", "size", "inner_depth", "alone"]
    assert found["inner_depth"].flags == ("--inner-depth", "-d")
    assert found["size"].path == ("inner", "size")
    assert (found["size"].default, found["size"].kind) == (3, int)
    assert found["path"].default is dataclasses.MISSING


def test_flat_names_make_nested_options_and_change_them():
    made = assembled(Outer, {"path": "x", "inner_depth": 2, "names": ["a", "b"]})
    assert made == Outer("x", ("a", "b"), inner=Inner(depth=2))
    assert assembled(Outer, {"size": 9}, made) == Outer("x", ("a", "b"), inner=Inner(9, 2))
    assert assembled(Outer, {"names": "ab"}, made).names == ("ab",)
    assert assembled(Outer, {"inner": Inner(4), "kept": 1}, made).inner.size == 4
    assert values_of(made)["inner_depth"] == 2


def test_an_unknown_keyword_is_a_type_error_with_the_nearest_name():
    with pytest.raises(TypeError, match="'inner_dept' is no option of Outer; did you mean"):
        assembled(Outer, {"path": "x", "inner_dept": 2})


@pytest.mark.parametrize(
    ("choices", "message", "hint"),
    [
        ({"size": 4}, "--size has no effect with --way short", "add --way long"),
        ({"inner_depth": 4}, "--inner-depth has no effect with --way short", "add --way long"),
        ({"alone": True, "names": "a"}, "--alone has no effect with --names",
         "leave --alone out"),
    ],
)  # fmt: skip
def test_an_option_that_nothing_follows_is_refused(choices, message, hint):
    with pytest.raises(InputError) as caught:
        chosen(Outer, None, {"path": "x", **choices})
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.code == "OPTION_WITHOUT_EFFECT"


def test_an_option_with_what_it_needs_or_at_its_default_is_fine():
    chosen(Outer, None, {"path": "x", "size": 4, "way": "long"})
    chosen(Outer, None, {"path": "x", "size": 3, "alone": True})


def test_one_of_several_needs_is_enough_and_what_is_unknown_counts_as_met():
    either = Needs({"a": bool, "b": bool}, "add --a")
    assert either.are_met({"a": None, "b": "x"})
    assert not either.are_met({"a": None, "b": None})
    assert either.are_met({})
    assert either.refusal("--c", {"a": None}).message == "--c has no effect without --a"


def test_a_method_brings_its_own_defaults_from_python_too():
    assert (PruneOptions().signal, PruneOptions().limit) == ("l1", 1024)
    iterative = PruneOptions(method="iterative")
    assert (iterative.signal, iterative.limit) == ("fisher", None)
    said = PruneOptions(method="iterative", signal="l1", limit=9)
    assert (said.signal, said.limit) == ("l1", 9)
    assert PruneOptions(limit=None).limit is None
    assert all(set(own) == {"signal", "limit"} for own in METHOD_DEFAULTS.values())
    assert (PruneOptions().allocation, PruneOptions().repair) == ("uniform", ())


def test_what_nobody_gave_follows_a_method_that_changes_and_what_was_given_stays():
    few = PruneOptions(min_width=2, limit=9)
    changed = chosen(PruneOptions, few, {"method": "iterative"})
    assert (changed.signal, changed.limit, changed.min_width) == ("fisher", 9, 2)
    back = chosen(PruneOptions, changed, {"method": "one-shot"})
    assert (back.signal, back.limit) == ("l1", 9)
    said = chosen(PruneOptions, few, {"method": "iterative", "signal": "l1"})
    again = chosen(PruneOptions, said, {"min_width": 3})
    assert (said.signal, again.signal) == ("l1", "l1")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        (PruneOptions(training=TrainingOptions(updates=3)), {}),
        (PruneOptions(latency=LatencyOptions(threads=3)), {"latency": None}),
        (PruneOptions(granularity="weight", align=8), {}),
        (PruneOptions(granularity="2:4", allocation="lamp"), {}),
        (PruneOptions(dead_threshold=0.1), {}),
        (PruneOptions(candidates=("l1",)), {}),
        (PruneOptions(importance="probe"), {}),
        (FinetuneOptions(sparsity_every=3), {}),
        (FinetuneOptions(temperature=2.0), {"teacher": Path("none")}),
        (FinetuneOptions(temperature=2.0), {"teacher": False}),
        (PruneOptions(training=TrainingOptions(alpha=0.5)), {}),
        (PruneOptions(method="iterative", training=TrainingOptions(alpha=0.5)), {}),
        (PruneOptions(training=TrainingOptions(epochs=2, alpha=0.5, teacher=Path("none"))), {}),
        (FinetuneOptions(record_learnability_mode="training"), {}),
    ],
)
def test_what_nothing_follows_is_refused_in_the_library(options, given):
    with pytest.raises(InputError, match="has no effect"):
        check_effect(options, **given)


@pytest.mark.parametrize("kind", WHOLE)
def test_every_need_names_an_option_that_exists(kind):
    beside = {"sweep", "latency", "speedup", "max_drop", "data", "model", "teacher"}
    beside |= {"record_learnability"}
    names = {known.name for known in declared(kind)} | beside
    for known in declared(kind):
        for need in known.option.needs:
            assert set(need.tests) <= names


@pytest.mark.parametrize("kind", KINDS)
def test_help_texts_are_sentences_and_say_no_default_by_hand(kind):
    for known in declared(kind):
        assert known.option.help[0].isupper()
        assert known.option.help.endswith(".")
        assert "[default" not in known.option.help


def test_options_are_read_without_anything_heavy():
    code = "import sys, prunecli.options; print({'torch', 'typer', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("prune", {"method", "granularity", "candidates", "updates", "latency_table", "flops"}),
        ("sparsify", {"granularity", "exclude", "masks"}),
        ("finetune", {"epochs", "sparsity", "curriculum", "teacher"}),
        ("analyze", {"oracle", "signals", "importance"}),
        ("export", {"opset", "tolerance", "classes"}),
    ],
)
def test_the_python_signature_has_every_option_by_name(verb, names):
    function = getattr(prunecli, verb)
    shown = inspect.signature(function).parameters
    assert names <= set(shown)
    assert "choices" not in shown
    assert all(f"\n    {name}: " in function.__doc__ for name in names & {"method", "epochs"})
