"""The names that are known without torch are those that are registered."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest

from prunecli.architectures.timm_names import is_known_to_timm, timm_names
from prunecli.data.source import BUILT_IN
from prunecli.errors import InputError
from prunecli.exporting.formats import EXPORT_FORMATS
from prunecli.importance import IMPORTANCES
from prunecli.options import AnalyzeOptions, ExportOptions, FinetuneOptions, PruneOptions
from prunecli.options.declare import declared, values_of
from prunecli.options.names import (
    LOOKING_AT_IMAGES,
    OTHER_KINDS,
    REGISTERED,
    SIGNAL_PARTS,
    looks_at_images,
)
from prunecli.preflight.exporting import ENDINGS
from prunecli.preflight.files import BUILT_IN_DATA
from prunecli.preflight.names import check_architecture, check_names
from prunecli.preflight.pruning import BY_IMPORTANCE, TABLES
from prunecli.signals import PRESETS, needs_data
from prunecli.verbs.sweep import WRITERS
from prunecli_cli.methods import registries

KNOWN = {registry.kind: registry for registry in registries()}


@pytest.mark.parametrize("kind", REGISTERED)
def test_the_names_of_a_kind_are_those_in_its_registry(kind):
    assert sorted(REGISTERED[kind]) == sorted(KNOWN[kind].names())


def test_every_kind_is_known():
    assert {*REGISTERED, *OTHER_KINDS} == set(KNOWN)


def test_every_way_to_put_a_signal_together_looks_at_images_as_the_library_says():
    parts = itertools.product(*(REGISTERED[kind] for kind in SIGNAL_PARTS[:2]))
    signals = [f"{base}/{metric}/l1/none" for base, metric in parts]
    for signal in (*PRESETS.names(), *signals):
        assert looks_at_images(signal) == needs_data(signal), signal
    looking = {entry.name for entry in IMPORTANCES if entry.value.needs_data}
    assert looking == LOOKING_AT_IMAGES["importance"]


def test_words_formats_and_endings_are_those_of_the_library():
    importlib.import_module("prunecli.data")
    assert set(BUILT_IN_DATA) == set(BUILT_IN)
    assert list(ENDINGS) == [end for entry in EXPORT_FORMATS for end in entry.value.endings]
    assert set(TABLES) == set(WRITERS)
    assert {name for name in REGISTERED["allocation"] if name.endswith("-importance")} == set(
        BY_IMPORTANCE
    )


@pytest.mark.parametrize("kind", [PruneOptions, FinetuneOptions, AnalyzeOptions, ExportOptions])
def test_the_defaults_of_all_options_are_known_names(kind):
    check_names(declared(kind), values_of(kind()))


def test_each_option_with_names_refuses_another_one():
    for kind in (PruneOptions, FinetuneOptions, AnalyzeOptions, ExportOptions):
        for known in declared(kind):
            if known.option.names or known.option.choices:
                with pytest.raises(InputError, match="nonsense"):
                    check_names([known], {known.name: "nonsense"})


def test_the_names_of_timm_are_read_without_importing_it():
    timm = pytest.importorskip("timm")
    assert list(timm_names()) == sorted(timm.list_models())
    older = set(timm.models._registry._model_entrypoints) - set(timm.list_models())
    assert all(map(is_known_to_timm, older))
    assert is_known_to_timm("resnet50.a1_in1k")


@pytest.mark.parametrize("name", ["resnet18", "cifar_resnet56", "package.module:factory", "a/b"])
def test_an_architecture_that_may_be_there_is_left_to_the_library(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("package").mkdir()
    check_architecture(name)


def test_a_factory_is_looked_for_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("raise SystemExit('it ran')\n")
    check_architecture("own:make")
    with pytest.raises(InputError, match="there is no module 'other'"):
        check_architecture("other:make")
