"""What the terminal shows of a report: few lines by default, the rest under --verbose."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from prunecli.report import EpochReport, GroupReport
from prunecli_cli.export_tables import benchmark_table
from prunecli_cli.reports import Method, MethodsReport
from prunecli_cli.tables import view
from tests.support.benchmark_rows import benchmark_row
from tests.support.command_line import run
from tests.support.fake_verbs import finetune_report, prune_report


def shown(report, *, rows: int | None = 20) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    for part in view(report, rows=rows):
        console.print(part)
    return [line for line in console.export_text().splitlines() if line.strip()]


def test_a_pruned_model_is_told_in_about_ten_lines_and_the_rest_with_verbose(verbs, capsys):
    _, _, err = run(capsys, "prune", "m.pt", "--flops", "0.5")
    told = [line for line in err.splitlines() if line.strip() and line != "working"]
    assert len(told) <= 13
    for fact in ("model", "FLOPs", "kept)", "equals the masked original", "written", "next:"):
        assert fact in err
    _, _, details = run(capsys, "prune", "m.pt", "--flops", "0.5", "--verbose", "--overwrite")
    assert len(details.splitlines()) > 2 * len(told)


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("prune m.pt --flops 0.5", "finetune m.pruned.pt --data images/ --teacher m.pt"),
        ("prune m.pt --flops 0.5 --data d", "finetune m.pruned.pt --data d --teacher m.pt"),
        ("finetune m.pt --data d", "export m.finetuned.pt --onnx --against t.pt"),
        ("export m.pt", "evaluate m.onnx --data images/"),
    ],
)
def test_a_verb_ends_with_the_command_that_usually_follows(verbs, capsys, words, following):
    assert f"next: prunecli {following}\n" in run(capsys, *words.split())[2]


def test_nothing_is_named_to_follow_where_scripts_read(verbs, capsys):
    assert "next:" not in "".join(run(capsys, "prune", "m.pt", "--flops", "0.5", "-q")[1:])


@pytest.mark.parametrize(
    ("kept", "align", "told"),
    [((8, 16), "auto", True), ((8, 8), "auto", False), ((8, 16), "1", False)],
)
def test_uniform_says_why_its_widths_are_not(kept, align, told):
    groups = tuple(GroupReport(f"layer{at}", 16, width, 0.1, 0.1) for at, width in enumerate(kept))
    report = dataclasses.replace(
        prune_report(Path("slim.pt")), groups=groups, allocation="uniform", align=align, signal="l1"
    )
    text = " ".join(" ".join(shown(report)).split())
    assert ("layers keep 50% to 100%" in text) is told


def test_the_registries_fit_a_screen_and_one_of_them_is_told_in_full():
    every = tuple(
        Method(f"kind {kind}", f"name{entry}", "What it is.", "Source 2020")
        for kind in range(40)
        for entry in range(9)
    )
    assert len(shown(MethodsReport(every))) <= 30
    one = "\n".join(shown(MethodsReport(every[:9])))
    assert "name8" in one
    assert "What it is." in one


def test_the_table_of_epochs_shows_what_a_method_reports_under_its_own_names():
    facts = ({"sparsity": 0.25}, {"sparsity": 0.5, "price": 0.125})
    epochs = tuple(
        EpochReport(at, 0.4, 0.9, 0.3, 0.05, 2400.0, 18.0, "bf16", told)
        for at, told in enumerate(facts, start=1)
    )
    report = dataclasses.replace(
        finetune_report(Path("t.pt")), epochs=epochs, best_epoch=2, precision="bf16"
    )
    lines = shown(report)
    assert "accuracy sparsity price rate" in " ".join(lines[0].split())
    assert "90.0 % 25.0 % 0.05" in " ".join(lines[2].split())
    assert "90.0 % 50.0 % 0.125 0.05" in " ".join(lines[3].split())
    assert any(line.split() == ["precision", "bf16"] for line in lines)


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "OpenVINO"])
def test_times_of_int8_fit_a_screen_with_no_word_torn(provider):
    row = dataclasses.replace(
        benchmark_row(1.83, 1.65, 5.93, slim_ms=118.81), provider=provider, float_ms=240.01, gain=2
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(benchmark_table([row]))
    words = console.export_text().replace(",", " ").split()
    device = ["cpu"] if provider.startswith("CPU") else ["cpu", "OpenVINO"]
    assert {"device", "batch", "dense", "slim", "float", "milliseconds:", *device} <= set(words)
