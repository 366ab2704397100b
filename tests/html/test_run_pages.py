"""Pages of models and runs: the figures of their reports, harmless names, a page for every road."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from prunecli import report, verbs
from prunecli.budget import format_quantity, make_budget, parse_sweep
from prunecli.errors import InputError
from prunecli.html import analysis_page, cut_page, export_page, finetune_page, sweep_page
from prunecli.options import AnalyzeOptions, ExportOptions, FinetuneOptions, PruneOptions
from prunecli.wording import percent
from prunecli_cli.main import main
from tests.support import browser, fake_verbs, html_checks
from tests.support.hostile import HOSTILE
from tests.support.samples import VGG


def words_of(page: Path) -> str:
    return " ".join(html_checks.read(page.read_text(encoding="utf-8")).words)


def described(page: Path) -> list[str]:
    reader = html_checks.read(page.read_text(encoding="utf-8"))
    return [attributes["aria-label"] for tag, attributes in reader.elements if tag == "svg"]


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """Return the reports of all verbs on one network, each with a page and pictures."""
    folder = tmp_path_factory.mktemp("road")

    def show(name: str) -> dict[str, Path]:
        return {"page": folder / f"{name}.html", "plots": folder / name}

    analyzed = verbs.analyze(
        model=VGG,
        data="digits",
        options=AnalyzeOptions(oracle=True, signals=("l1", "random"), importance=True, limit=60),
        page=folder / "analyze.html",
        plots=folder / "analyze",
    )
    cut = verbs.prune(
        VGG,
        output=folder / "cut.pt",
        budget=make_budget(flops="0.5"),
        options=PruneOptions(
            signal="auto", candidates=("l1",), repair=("bias",), dead=True, limit=100
        ),
        data="digits",
        **show("prune"),
        command="prunecli prune",
    )
    tuned = verbs.finetune(
        folder / "cut.pt",
        data="digits",
        output=folder / "tuned.pt",
        teacher=VGG,
        options=FinetuneOptions(epochs=2, limit=300),
        **show("finetune"),
        command="prunecli finetune",
    )
    exported = verbs.export(
        folder / "tuned.pt",
        output=folder / "net.onnx",
        against=VGG,
        options=ExportOptions(batches=(1, 4), runs=5),
        **show("export"),
        command="prunecli export",
    )
    return folder, analyzed, cut, tuned, exported


VERBS = ("analyze", "prune", "finetune", "export")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_writes_a_page_that_is_well_made_and_pictures(road, verb):
    folder, *reports = road
    found = reports[VERBS.index(verb)]
    assert found.page == folder / f"{verb}.html"
    reader = html_checks.read(found.page.read_text(encoding="utf-8"))
    drawings = [tag for tag, _ in reader.elements if tag == "svg"]
    assert len(drawings) >= (10 if verb == "analyze" else 4)  # on a desk and on a phone
    assert {path.suffix for path in found.pictures} == {".svg", ".png"}
    assert all(path.parent == folder / verb and path.is_file() for path in found.pictures)
    assert report.to_json(found)["page"] == str(found.page)


def test_the_page_of_a_model_says_what_every_layer_costs_and_why_it_stays(road):
    folder, analyzed, *_ = road
    model = analyzed.model
    words = words_of(folder / "analyze.html")
    assert format_quantity(model.cost.flops) in words
    assert percent(model.lowest_flops) in words
    for layer in model.layers:
        assert f"{layer.name} {layer.operator} {layer.channels:,} {layer.free:,}" in words
        assert f"{layer.params:,.0f}" in words
    for frozen in model.frozen:
        assert frozen.reason in words
    for group in model.groups:
        for cut in group.sensitivity:
            assert percent(cut["accuracy"]) in words
    named = ("layers", "sensitivity", "oracle")
    assert {path.stem for path in analyzed.pictures} >= set(named)
    shown = " ".join(described(folder / "analyze.html"))
    assert f"{len(model.layers)} layers. Most FLOPs: " in shown


def test_the_page_of_a_cut_says_what_was_asked_kept_and_proven(road):
    folder, _, cut, *_ = road
    words = words_of(folder / "prune.html")
    assert "at most 50.0 % of the FLOPs" in words
    assert percent(cut.cost.kept["flops"]) in words
    start = words.rindex(" Result ")  # after the contents
    assert words.index("Verified", start) < words.index("of the FLOPs kept", start)
    told = f"for any batch and images of 8 x 8; max relative error {cut.verified.error}"
    assert f"equals the masked original Verified {told}" in words
    assert f"accuracy after repair {percent(cut.repair.steps[-1].accuracy)}" in words
    assert cut.candidates.chosen in words
    for layer in cut.layers:
        assert f"{layer.name} {layer.operator} {layer.channels:,} {layer.kept:,}" in words
        assert f"{layer.name}: {layer.kept} of {layer.channels}" in " ".join(
            described(folder / "prune.html")
        )
    for step in cut.repair.steps:
        assert f"{step.loss:.4f}" in words
    assert {path.stem for path in cut.pictures} == {"layers", "candidates"}


def test_the_page_of_a_training_says_every_epoch_and_the_teacher(road):
    folder, _, cut, tuned, _ = road
    words = words_of(folder / "finetune.html")
    for epoch in tuned.epochs:
        assert f"{epoch.train_loss:.4f} {epoch.loss:.4f} {percent(epoch.accuracy)}" in words
    for share in (tuned.accuracy.before, tuned.accuracy.after, tuned.teacher):
        assert percent(share) in words
    assert f"best epoch {tuned.best_epoch} of 2" in words
    assert f"verified: {cut.verified.statement}" in words  # of the cut, from the file
    assert "operator by operator, for any batch and images of 8 x 8" in cut.verified.statement


def test_the_page_of_an_export_tells_the_whole_way(road):
    folder, _, cut, tuned, exported = road
    words = words_of(folder / "export.html")
    order = [f"{name} of the FLOPs" for name in ("original", "pruned", "fine-tuned", "exported")]
    start = words.rindex("Pipeline history")  # after the contents
    places = [words.index(name, start) for name in order]
    assert places == sorted(places)
    assert f"{percent(cut.cost.kept['flops'])}" in words
    assert "at most 50.0 % of the FLOPs" in words
    assert percent(tuned.accuracy.after) in words
    error = f"max relative error {exported.parity.max_rel_error:.1e}"
    assert f"equals the PyTorch model Verified {error}" in words
    assert "Times are milliseconds per batch." in words
    for row in exported.benchmark:
        assert f"{row.dense_ms:.3f} {row.slim_ms:.3f}" in words
        assert f"{row.speedup:.2f}x" in words
        assert f"{row.speedup_low:.2f} to {row.speedup_high:.2f}" in words
    for command in ("prunecli prune", "prunecli finetune", "prunecli export"):
        assert command in words


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page_fits_a_window_in_a_browser_and_loads_nothing(road, tmp_path, verb, width):
    folder, *_ = road
    found = browser.look(folder / f"{verb}.html", tmp_path, width=width)
    assert found["width"] <= width
    assert found["beyond"] == []
    assert found["scrolled"] == []
    assert min(found["letters"]) >= 9  # pixels
    assert found["loaded"] == []
    assert found["console"] == []
    assert all(wide > 200 and high > 50 for wide, high in found["drawings"])


def test_a_sweep_has_a_page_with_all_trials_and_the_command_for_one(tmp_path):
    page = tmp_path / "sweep.html"
    found = verbs.sweep(
        VGG,
        sweep=parse_sweep("flops=0.5:0.9:0.4"),
        signals=["l1"],
        allocations=["uniform"],
        options=PruneOptions(limit=100),
        data="digits",
        page=page,
        plots=tmp_path / "pictures",
        command=f"prunecli prune {VGG} --sweep flops=0.5:0.9:0.4 --data digits",
    )
    words = words_of(page)
    assert found.page == page
    for trial in found.trials:
        assert percent(trial.kept["flops"]) in words
        assert f"{trial.score.loss:.4f}" in words
        assert percent(trial.score.accuracy) in words
    assert found.next_command.startswith(f"prunecli prune {VGG} --data digits --flops 0.")
    assert found.next_command in words
    assert {path.name for path in found.pictures} == {"sweep.svg", "sweep.png"}


# --- the other roads ------------------------------------------------------------------------------


def test_weights_that_were_zeroed_are_told_layer_by_layer(tmp_path):
    found = verbs.prune(
        VGG,
        output=tmp_path / "sparse.pt",
        budget=make_budget(sparsity="0.7"),
        options=PruneOptions(granularity="weight"),
        page=tmp_path / "sparse.html",
        plots=tmp_path / "pictures",
        command="prunecli prune --granularity weight",
    )
    words = words_of(tmp_path / "sparse.html")
    assert "70.0 % of the weights set to zero" in words
    for layer in found.sparsity.layers:
        assert f"{layer.weights:,} {layer.kept:,}" in words
    assert {path.stem for path in found.pictures} == {"layers"}
    tuned = verbs.export(
        tmp_path / "sparse.pt",
        output=tmp_path / "net.onnx",
        options=ExportOptions(benchmark=False),
        page=tmp_path / "net.html",
    )
    (first, _) = tuned.history
    assert first.sparsity == pytest.approx(0.7, abs=0.01)
    assert "of the weights zero" in words_of(tmp_path / "net.html")


def test_a_plan_that_was_not_carried_out_says_so(tmp_path):
    page = tmp_path / "plan.html"
    found = verbs.prune(VGG, budget=make_budget(flops="0.5"), dry_run=True, page=page)
    assert found.output is None
    words = words_of(page)
    assert "plan to prune" in words
    assert "nothing was pruned Plan only" in words
    assert "Verified" not in words
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]


def test_iterative_and_latency_figures_are_on_the_page():
    made = fake_verbs.prune_report(Path("x.pt"), latency=fake_verbs.latency_report(met=False))
    made = dataclasses.replace(made, iterative=fake_verbs.iterative_report(dry_run=False))
    reader = html_checks.read(cut_page(made))
    words = " ".join(reader.words)
    assert "predicted 9.500 6.600 69.5 %" in words
    assert "measured 10.000 7.800 78.0 % 77.0 % to 79.0 %" in words
    assert "The budget was 70.0 % of the original latency. It was missed." in words
    assert "off by -10.9 %" in words
    assert "milliseconds per batch of 1 image," in words
    for removal in made.iterative.removals[::7]:
        assert f"{removal.channels:,} {percent(removal.flops)}" in words
    planned = dataclasses.replace(made, iterative=fake_verbs.iterative_report(dry_run=True))
    assert "About 30 pruning steps with 620 training updates would take 190 s" in cut_page(planned)


def test_a_network_without_a_history_or_a_dense_one_has_a_page():
    bare = fake_verbs.export_report(Path("x.onnx"), speedup=None)
    words = " ".join(html_checks.read(export_page(bare)).words)
    assert "Pipeline history" not in words
    assert "7.600" in words
    none = dataclasses.replace(bare, benchmark=())
    assert "Speed" not in " ".join(html_checks.read(export_page(none)).words)


def test_a_training_says_how_learnability_chose_its_images():
    by = report.SamplingReport(
        "curriculum", (Path("a.parquet"),), 1500, 30, (0.33, 1.0), (0.5, 2.0)
    )
    tuned = dataclasses.replace(fake_verbs.finetune_report(Path("x.pt")), sampling=by)
    words = " ".join(html_checks.read(finetune_page(tuned)).words)
    assert "curriculum, from a.parquet" in words
    assert "1,500, 30 of them in no record" in words
    assert "epoch 1: 33.0 %; epoch 2: 100.0 %" in words
    assert "0.5 to 2" in words


def test_a_page_says_by_which_command_it_was_made():
    typed = "prunecli verb m.pt --report r.html"
    analyzed = fake_verbs.analyze_report(model=True, dataset=False)
    for text in (
        cut_page(fake_verbs.prune_report(Path("x.pt")), command=typed),
        sweep_page(fake_verbs.sweep_report(), command=typed),
        analysis_page(analyzed, None, command=typed),
    ):
        assert f"command {typed}" in " ".join(html_checks.read(text).words)


def test_the_way_names_the_file_that_a_command_took_from_a_pipe():
    steps = (
        report.RunStep("prune", "prunecli prune m.pt --flops 0.5", "m.pt"),
        report.RunStep("finetune", "prunecli finetune --data digits", "m.pruned.pt"),
    )
    tuned = dataclasses.replace(fake_verbs.finetune_report(Path("x.pt")), history=steps)
    words = " ".join(html_checks.read(finetune_page(tuned)).words)
    assert "prunecli prune m.pt --flops 0.5 2. fine-tuned" in words
    assert "prunecli finetune --data digits (on m.pruned.pt)" in words


def test_a_page_says_whether_the_stated_gates_were_met(tmp_path):
    page = tmp_path / "untimed.html"
    verbs.export(
        VGG,
        output=page.with_suffix(".onnx"),
        options=ExportOptions(benchmark=False),
        page=page,
        gates=report.Gates(min_speedup=1.5),
    )
    assert "gates not met: no speed-up was measured" in words_of(page)
    tuned = fake_verbs.finetune_report(Path("x.pt"))
    reached = tuned.accuracy.after
    for lowest, told in ((reached, "gates met"), (reached + 0.01, "gates not met: accuracy is")):
        text = finetune_page(tuned, gates=report.Gates(min_accuracy=lowest))
        assert told in " ".join(html_checks.read(text).words)
    assert "gates" not in " ".join(html_checks.read(finetune_page(tuned)).words)


# --- names that mean harm -------------------------------------------------------------------------


def harmful_pages(name: str) -> list[str]:
    cut = fake_verbs.prune_report(Path(name.replace("/", "")), warnings=(name,))
    layer = report.LayerCut(name, name, 8, 4, 9.0, 3.0, 72.0, 36.0, name)
    zeros = report.SparsityReport(
        "weight", name, 10, 5, 0.5, (report.LayerSparsity(name, (2, 5), 10, 5, name),)
    )
    step = report.RunStep("prune", name, name, cost=cut.cost, budget={name: {"fraction": 0.5}},
                          chosen=name, verified=report.Verified(name, 1e-9),
                          accuracy=report.AccuracyChange(0.9, 0.8, name))  # fmt: skip
    trial = dataclasses.replace(fake_verbs.trial("l1", 0.5, 0.4), signal=name, allocation=name)
    search = dataclasses.replace(fake_verbs.SEARCH, trials=(trial,), chosen=name)
    sweep = dataclasses.replace(fake_verbs.sweep_report(), architecture=name, trials=(trial,))
    tuned = dataclasses.replace(
        fake_verbs.finetune_report(Path("x.pt")), architecture=name, history=(step,),
        warnings=(name,), sparsity=zeros,
    )  # fmt: skip
    exported = dataclasses.replace(
        fake_verbs.export_report(Path("x.onnx")), architecture=name, history=(step,)
    )
    cut = dataclasses.replace(
        cut, architecture=name, layers=(layer,), candidates=search, mode=name, signal=name,
        frozen=(report.FrozenReport(name, name, name, 0.1),), latency=None,
    )  # fmt: skip
    zeroed = dataclasses.replace(cut, sparsity=zeros, layers=(), plan={"sparsity": 0.5})
    return [
        cut_page(cut), cut_page(zeroed), sweep_page(sweep), finetune_page(tuned),
        export_page(exported), model_page(name),
    ]  # fmt: skip


def model_page(name: str) -> str:
    made = fake_verbs.analyze_report(model=True, dataset=False)
    layer = report.LayerAnalysis(name, name, 8, 4, 9.0, 72.0, 0.5, (name,), name)
    group = dataclasses.replace(made.model.groups[0], name=name)
    model = dataclasses.replace(
        made.model, architecture=name, layers=(layer,), groups=(group,), elsewhere={name: 3.0},
        frozen=(report.FrozenReport(name, name, name, 0.1),), not_counted={name: 1},
    )  # fmt: skip
    return analysis_page(dataclasses.replace(made, model=model), None)


DRAWN = {"g", "path", "use", "text", "defs"}


def test_names_are_shown_on_every_page_and_never_obeyed():
    name = " ".join(HOSTILE)
    shown = name.replace("\udce9", "\\udce9").replace("\x07", "\\x07").replace("\u202e", "\\u202e")
    for harmful, harmless in zip(harmful_pages(name), harmful_pages("name"), strict=True):
        reader = html_checks.read(harmful)
        # Marks, ticks and lines of titles in pictures depend on the length of the name.
        tags, usual = (
            [tag for tag, _ in each.elements if tag not in DRAWN]
            for each in (reader, html_checks.read(harmless))
        )
        assert tags == usual
        assert sum(shown in word for word in reader.words) >= 2


# --- the command line -----------------------------------------------------------------------------


def test_commands_name_their_pages_and_refuse_to_harm(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["prune", str(VGG), "--flops", "0.5", "--report"]
    assert main([*words, "cut.html", "--plots", "pictures", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["page"] == "cut.html"
    assert data["pictures"] == ["pictures/layers.svg", "pictures/layers.png"]
    assert Path("cut.html").is_file()
    slim = Path("digits_vgg.pruned.pt")
    before = slim.read_bytes()
    slim.unlink()
    assert main([*words, "cut.html"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "cut.pdf"]) == 2
    assert not slim.exists()  # before any work
    assert main([*words, "cut.html", "--overwrite", "--plots", "pictures"]) == 0
    assert slim.read_bytes() != before  # only its own command differs
    export = ["export", str(slim), "--no-benchmark", "--report", "cut.html"]
    assert main(export) == 2
    assert not Path("digits_vgg.pruned.onnx").exists()


def test_a_page_that_cannot_be_written_is_an_error_before_any_work(tmp_path):
    def work(step):
        pytest.fail(f"{step.stage} came first")

    page = tmp_path / "no" / "report.html"
    calls = (
        lambda: verbs.prune(VGG, budget=make_budget(flops="0.5"), page=page, progress=work),
        lambda: verbs.finetune(VGG, data="digits", page=page, progress=work),
        lambda: verbs.export(VGG, page=page, progress=work),
        lambda: verbs.sweep(
            VGG, sweep=parse_sweep("flops=0.5:0.9:0.4"), signals=["l1"], allocations=["uniform"],
            data="digits", page=page, progress=work,
        ),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(InputError, match="does not exist"):
            call()


def test_verbs_that_read_from_a_pipe_write_their_pages(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = (
        ("prune", str(VGG), "--flops", "0.5", "-q", "--report", "a.html"),
        ("finetune", "--data", "digits", "--epochs", "1", "--limit", "100", "-q",
         "--report", "b.html"),
        ("export", "--no-benchmark", "-q", "--report", "c.html"),
    )  # fmt: skip
    for at, words in enumerate(lines):
        Path(f"pipe{at}").write_text(capsys.readouterr().out)
        with Path(f"pipe{at}").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert main([*words]) == 0
    assert Path(capsys.readouterr().out.strip()).suffix == ".onnx"
    words = words_of(Path("c.html"))
    for name in ("prunecli prune", "prunecli finetune --data digits", "prunecli export"):
        assert name in words
