"""Zeroing weights through the command line: what arrives in the library, and what is shown."""

from __future__ import annotations

import json

import pytest

from prunecli import report
from prunecli.options import FinetuneOptions, PruneOptions
from prunecli_cli.main import main
from tests.support.fake_verbs import FakeVerbs


@pytest.fixture
def fake(monkeypatch, tmp_path) -> FakeVerbs:
    import prunecli.verbs

    found = FakeVerbs()
    for verb in ("prune", "finetune"):
        monkeypatch.setattr(prunecli.verbs, verb, getattr(found, verb))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").write_bytes(b"weights")
    (tmp_path / "d").mkdir()
    return found


def test_a_granularity_arrives_with_its_budget_and_a_pattern_without_one(fake) -> None:
    assert main(["prune", "m.pt", "--granularity", "weight", "--sparsity", "0.9"]) == 0
    assert main(["prune", "m.pt", "--granularity", "2:4", "-o", "b.pt"]) == 0
    (_, weight), (_, pattern) = fake.calls
    assert str(weight["budget"]) == "channels <= 0.1"
    assert weight["options"] == PruneOptions(granularity="weight")
    assert pattern["budget"] is None
    assert pattern["options"] == PruneOptions(granularity="2:4")


def test_every_flag_about_growing_sparsity_arrives(fake) -> None:
    words = (
        "finetune m.pt --data d --granularity weight --sparsity 90% --sparsity-schedule linear "
        "--sparsity-every 7 --sparsity-until 0.5 --allocation lamp"
    )
    assert main(words.split()) == 0
    ((_, given),) = fake.calls
    assert given["options"] == FinetuneOptions(
        granularity="weight", sparsity=0.9, sparsity_schedule="linear", sparsity_every=7,
        sparsity_until=0.5, allocation="lamp",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--granularity", "weight"], "NO_BUDGET"),
        (["--granularity", "4:2"], "BAD_GRANULARITY"),
        (["--granularity", "weight", "--flops", "0.5"], "BAD_BUDGET"),
        (["--granularity", "weight", "--sparsity", "0.5", "--align", "8"], "OPTION_WITHOUT_EFFECT"),
    ],
)
def test_a_mistake_is_told_in_the_envelope(digits_checkpoint, monkeypatch, capsys, words, code):
    monkeypatch.chdir(digits_checkpoint.parent)
    assert main(["prune", str(digits_checkpoint), *words, "--json", "-o", "out.pt"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert not (digits_checkpoint.parent / "out.pt").exists()


def test_an_option_without_meaning_goes_by_its_own_name(digits_checkpoint, monkeypatch, capsys):
    monkeypatch.chdir(digits_checkpoint.parent)
    words = ["--granularity", "weight", "--sparsity", "0.5", "--threads", "2", "--json"]
    assert main(["prune", str(digits_checkpoint), *words]) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert message == "--threads has no effect with --granularity weight"


def test_the_table_shows_layers_and_sizes_and_json_keeps_its_keys(
    digits_checkpoint, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(digits_checkpoint.parent)
    words = ["prune", digits_checkpoint.name, "--granularity", "weight", "--sparsity", "0.75"]
    assert main([*words, "-o", "a.pt", "--verbose"]) == 0
    shown = capsys.readouterr().err
    assert "75.0 %" in shown
    assert "conv1" in shown
    assert "weight/value/l1/none, of single weights" in shown
    assert "stored and restored == dense x mask" in shown
    assert main([*words, "-o", "b.pt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["data"]
    assert set(found) == {
        field for field in report.PruneReport.__dataclass_fields__ if field != "warnings"
    }
    assert found["groups"] == []
    assert found["verified"]["max_rel_error"] == 0
    assert found["sparsity"]["bytes_after"] < found["sparsity"]["bytes_before"]
    assert found["plan"]["keep"]["conv1.weight"] == found["sparsity"]["layers"][0]["kept"]
    assert found["cost"]["after"]["params"] < found["cost"]["before"]["params"]
