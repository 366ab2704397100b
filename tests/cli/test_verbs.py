"""The verbs against verbs that compute nothing: options, output, gates, exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from prunecli.options import (
    ComplexityOptions,
    ExportOptions,
    FinetuneOptions,
    LoadOptions,
    PruneOptions,
    TrainingOptions,
)
from tests.support.command_line import envelope, run

# What each verb takes at least, and the keys that its data is promised to hold.
VERBS = {
    "analyze": (
        ["m.pt", "--data", "digits"],
        {"dataset", "masks", "model", "seconds", "pictures", "learnability", "page"},
    ),
    "prune": (
        ["m.pt", "--flops", "0.5"],
        {
            "output",
            "plan",
            "cost",
            "verified",
            "groups",
            "frozen",
            "architecture",
            "mode",
            "signal",
            "allocation",
            "align",
            "seconds",
            "repair",
            "sparsity",
            "importance",
            "iterative",
            "learning",
            "latency",
            "candidates",
            "dead",
            "layers",
            "blocks",
            "choice",
            "classifier",
            "training",
            "preparation",
            "pictures",
            "page",
        },
    ),
    "finetune": (
        ["m.pt", "--data", "digits"],
        {
            "output",
            "augmentation",
            "accuracy",
            "held_out",
            "epochs",
            "best_epoch",
            "log",
            "threads",
            "seconds",
            "sparsity",
            "record",
            "architecture",
            "teacher",
            "history",
            "pictures",
            "page",
            "sampling",
            "precision",
            "preparation",
            "taught_by",
            "imitated",
            "stopped_early",
            "outputs",
        },
    ),
    "evaluate": (
        ["m.pt", "--data", "digits"],
        {
            "accuracy",
            "measure",
            "top5",
            "loss",
            "count",
            "per_class",
            "split",
            "preparation",
            "precision",
            "outputs",
        },
    ),
    "export": (
        ["m.pt"],
        {
            "output",
            "opset",
            "format",
            "bytes",
            "parity",
            "conversion",
            "benchmark",
            "seconds",
            "architecture",
            "history",
            "pictures",
            "page",
        },
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_envelope_of_a_verb_has_exactly_the_promised_keys(verbs, capsys, verb):
    words, keys = VERBS[verb]
    code, found = envelope(capsys, verb, *words)
    assert code == 0
    assert list(found) == ["schema_version", "command", "ok", "data", "warnings"]
    assert (found["schema_version"], found["command"], found["ok"]) == (1, verb, True)
    assert set(found["data"]) == keys


def test_the_nested_keys_of_the_envelopes_are_pinned(verbs, capsys):
    pruned = envelope(capsys, "prune", "m.pt", "--flops", "0.5")[1]["data"]
    costs = {"flops", "params", "activations", "bytes", "channels", "latency"}
    assert set(pruned["cost"]) == {"before", "after", "kept"}
    assert set(pruned["cost"]["before"]) == set(pruned["cost"]["after"]) == costs
    assert set(pruned["verified"]) == {
        "method",
        "max_rel_error",
        "by_structure",
        "scope",
        "limits",
    }
    assert {"name", "before", "after"} <= set(pruned["groups"][0])
    assert {"name", "reason"} <= set(pruned["frozen"][0])
    dead = {"groups", "channels", "removable", "images", "threshold", "borders", "scores"}
    assert dead <= set(pruned["dead"])
    kinds = {"name", "width", "constant", "unread", "below", "stays", "flops_share"}
    assert set(pruned["dead"]["groups"][0]) == kinds
    exported = envelope(capsys, "export", "m.pt")[1]["data"]
    assert "max_rel_error" in exported["parity"]
    promised = {"device", "provider", "batch", "dense_ms", "slim_ms", "speedup", "flops_ratio"}
    assert promised <= set(exported["benchmark"][0])
    tuned = envelope(capsys, "finetune", "m.pt", "--data", "digits")[1]["data"]
    assert {"before", "after"} <= set(tuned["accuracy"])
    analyzed = envelope(capsys, "analyze", "m.pt", "--data", "digits")[1]["data"]
    assert "csg" in analyzed["dataset"]
    assert {"name", "width", "minimum", "sensitivity"} <= set(analyzed["model"]["groups"][0])
    assert set(analyzed["model"]["dead"]) == set(pruned["dead"])


def test_json_mode_keeps_all_but_the_envelope_on_stderr(verbs, capsys):
    verbs.prints = "a library talks"
    code, out, err = run(capsys, "prune", "m.pt", "--flops", "0.5", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert err == "working\na library talks\n"  # kept away from the data


def test_numbers_that_json_lacks_become_null(verbs, capsys):
    verbs.accuracy["m.pt"] = float("nan")
    _, found = envelope(capsys, "evaluate", "m.pt", "--data", "digits")
    assert found["data"]["accuracy"] is None


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["prune", "nets/m.th", "--flops", "0.5"], "m.pruned.pt"),
        (["finetune", "nets/m.pruned.pt", "--data", "d"], "m.pruned.finetuned.pt"),
        (["export", "nets/m.pruned.pt"], "m.pruned.onnx"),
        (["export", "nets/m.pruned.pt", "--onnx"], "m.pruned.onnx"),
        (["export", "nets/m.pruned.pt", "--onnx", "slim.onnx"], "slim.onnx"),
        (["prune", "m.pt", "--flops", "0.5", "-o", "slim.safetensors"], "slim.safetensors"),
    ],
)
def test_a_pipe_and_quiet_get_the_output_path_alone(verbs, capsys, words, path):
    code, out, err = run(capsys, *words)
    assert (code, out) == (0, f"{path}\n")
    assert path in err  # the report
    code, out, err = run(capsys, *words, "-q", "--overwrite")
    assert (code, out, err) == (0, f"{path}\n", "")


def test_a_terminal_gets_the_report_and_no_bare_path(verbs, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, out, err = run(capsys, "prune", "m.pt", "--flops", "0.5")
    assert out == ""
    assert "m.pruned.pt" in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_report_fits_80_columns_and_carries_no_colour_codes(verbs, capsys, verb):
    _, out, err = run(capsys, verb, *VERBS[verb][0])
    shown = out if len(out) > len(err) else err
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_long_tables_are_cut_short_unless_verbose(verbs, capsys):
    words = ("prune", "m.pt", "--flops", "0.5", "--dry-run")
    assert "8 more groups: --verbose" in run(capsys, *words)[1]
    assert "layer4.6.conv1" in run(capsys, *words, "--verbose")[1]


def test_force_color_colours_and_no_color_does_not(verbs, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    verbs.warnings = ("2 layers are frozen",)
    assert "\x1b[33m" in run(capsys, "prune", "m.pt", "--flops", "0.5")[2]
    monkeypatch.setenv("NO_COLOR", "1")
    told = run(capsys, "prune", "m.pt", "--flops", "0.5", "--overwrite")[2]
    assert "\x1b[33m" not in told
    assert "2 layers are frozen" in told


def test_warnings_go_to_stderr_even_when_quiet_and_into_the_envelope(verbs, capsys):
    verbs.warnings = ("nothing was cut in 3 groups",)
    assert "warning: nothing was cut" in run(capsys, "prune", "m.pt", "--flops", "0.5", "-q")[2]
    _, found = envelope(capsys, "prune", "m.pt", "--flops", "0.5", "--overwrite")
    assert found["warnings"] == ["nothing was cut in 3 groups"]
    assert "warnings" not in found["data"]


def test_a_dry_run_prints_the_plan_on_stdout_and_no_path(verbs, capsys):
    code, out, _ = run(capsys, "prune", "m.pt", "--flops", "0.5", "--dry-run")
    assert code == 0
    assert "layer1.0.conv1" in out
    assert "--dry-run" in out
    assert not Path("m.pruned.pt").exists()
    assert run(capsys, "prune", "m.pt", "--flops", "0.5", "--dry-run", "-q")[1] == ""


def test_quiet_evaluate_prints_the_accuracy_alone(verbs, capsys):
    assert run(capsys, "evaluate", "m.pt", "--data", "digits", "-q")[1] == "0.9\n"


def test_every_prune_flag_arrives_in_the_library(verbs, capsys):
    words = shlex.split(
        "prune m.pt --flops 0.5 --params 1M --signal taylor --allocation inverse-importance"
        " --aggregate max"
        " --importance energy"
        " --align 4 --min-width 2 --exclude a.* --exclude b --only c --data d --limit 7 --seed 3"
        " --arch resnet18 --arch-arg width=64 --arch-arg kind=x --input-size 32x48"
        " --mean 0.1,0.2,0.3 --std 1,1,1 --allow-pickle --weights ema --prefix a.b --ignore loss.*"
        " --ignore x --map c=fc --map d= --overwrite -o out.pt"
    )
    assert run(capsys, *words)[0] == 0
    ((_, given),) = verbs.calls
    assert str(given["budget"]) == "flops <= 0.5, params <= 1M"
    assert given["options"] == PruneOptions(
        "taylor",
        "inverse-importance",
        "max",
        4,
        2,
        ("a.*", "b"),
        ("c",),
        seed=3,
        limit=7,
        importance="energy",
    )
    assert given["load"] == LoadOptions(
        "resnet18",
        {"width": 64, "kind": "x"},
        (32, 48),
        (0.1, 0.2, 0.3),
        (1.0, 1.0, 1.0),
        True,
        weights="ema",
        prefix="a.b",
        ignore=("loss.*", "x"),
        renamed={"c": "fc", "d": ""},
    )
    assert (given["data"], given["overwrite"], given["dry_run"]) == ("d", True, False)
    assert given["command"].startswith("prunecli prune m.pt --flops 0.5")


def test_dead_channels_need_no_budget_and_their_flags_arrive(verbs, capsys):
    assert run(capsys, "prune", "m.pt", "--dead", "--dead-threshold", "0.01", "--data", "d")[0] == 0
    words = ("--dead", "--flops", "0.5", "--overwrite")
    assert run(capsys, "prune", "m.pt", *words)[0] == 0
    assert run(capsys, "analyze", "m.pt", "--data", "d", "--dead-threshold", "0.02")[0] == 0
    assert run(capsys, "prune", "m.pt")[0] == 2
    (_, alone), (_, both), (_, analyzed) = verbs.calls
    assert (alone["budget"].limits, str(both["budget"])) == ((), "flops <= 0.5")
    assert alone["options"] == PruneOptions(dead=True, dead_threshold=0.01)
    assert both["options"] == PruneOptions(dead=True)
    assert analyzed["options"].dead_threshold == 0.02


def test_a_report_says_which_channels_are_dead_and_what_their_removal_does(verbs, capsys):
    assert "302 of 4096" in run(capsys, "prune", "m.pt", "--dead")[2]
    _, _, shown = run(capsys, "prune", "m.pt", "--dead", "--verbose", "--overwrite")
    for words in ("302 of 4096", "1024 images", "0.612345 -> 0.612355", "off by 0.25"):
        assert words in " ".join(shown.split())
    assert "1: it carries the constants of others" in " ".join(shown.split())


def test_every_flag_about_a_data_set_arrives_in_the_library(verbs, capsys):
    words = (
        "analyze digits --embedding autoencoder+tsne-2 --embedding-epochs 3 --samples 50 "
        "--neighbours 5 --volume none --variant auls --repeats 4 --memory 2GB --reduce "
        "--tolerance 0.2 --write-subset part.txt --subset-rule confusion --per-class 9"
    )
    run(capsys, *words.split())
    ((_, given),) = verbs.calls
    assert given["options"].complexity == ComplexityOptions(
        embedding="autoencoder+tsne-2",
        epochs=3,
        samples=50,
        neighbours=5,
        volume="none",
        variant="auls",
        repeats=4,
        limit=None,
        memory=2 * 10**9,
        reduce=True,
        tolerance=0.2,
        subset="part.txt",
        subset_rule="confusion",
        per_class=9,
    )


def test_every_flag_of_an_iterative_cut_arrives_in_the_library(verbs, capsys):
    words = shlex.split(
        "prune m.pt --flops 0.5 --method iterative --data d --updates 7 --remove-per-step 3"
        " --lr 0.01 --optimizer adam --batch-size 32 --teacher t.pt --limit 900 --resume"
        " --amp bf16 --schedule cosine --ema 0.9"
    )
    assert run(capsys, *words)[0] == 0
    ((_, given),) = verbs.calls
    assert given["options"] == PruneOptions(
        signal="fisher",
        method="iterative",
        limit=900,
        training=TrainingOptions(
            remove_per_step=3,
            updates=7,
            lr=0.01,
            optimizer="adam",
            batch_size=32,
            amp="bf16",
            schedule="cosine",
            ema=0.9,
            teacher=Path("t.pt"),
            resume=True,
        ),
    )


def test_an_iterative_cut_takes_all_images_and_its_own_signal_unless_told(verbs, capsys):
    words = ("prune", "m.pt", "--flops", "0.5", "--method", "iterative", "--data", "d")
    run(capsys, *words)
    run(capsys, *words, "--signal", "l1", "--overwrite")
    signals = [given["options"].signal for _, given in verbs.calls]
    assert signals == ["fisher", "l1"]
    assert verbs.calls[0][1]["options"].limit is None
    assert PruneOptions(method="iterative") == verbs.calls[0][1]["options"]


def test_an_iterative_cut_counts_its_removals_and_with_verbose_lists_them(verbs, capsys):
    words = ("prune", "m.pt", "--flops", "0.5", "--method", "iterative", "--data", "d")
    shown = run(capsys, *words)[2]
    assert "30 removals, held-out accuracy 92.0 % -> 90.0 %" in " ".join(shown.split())
    details = run(capsys, *words, "--verbose", "--overwrite")[2]
    assert "310 ms -> 160 ms" in details
    lines = [line.split() for line in details.splitlines()]
    assert {str(at) for at in range(1, 31)} <= {line[0] for line in lines if line}
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "620 updates" in run(capsys, *words, "--dry-run")[1]


@pytest.mark.parametrize("flag", ["--updates 3", "--lr 0.1", "--teacher t.pt", "--resume"])
def test_a_flag_of_iterative_cuts_alone_is_a_usage_error(verbs, capsys, flag):
    code, _, err = run(capsys, *shlex.split(f"prune m.pt --flops 0.5 {flag}"))
    assert code == 2
    assert "--method iterative" in err
    assert verbs.calls == []


def test_every_finetune_flag_arrives_in_the_library(verbs, capsys):
    words = shlex.split(
        "finetune m.pt --data d --epochs 7 --lr 0.2 --optimizer adamw --schedule cosine"
        " --batch-size 9 --weight-decay 0.1 --momentum 0.5 --amp no --ema 0.9 --augment none"
        " --label-smoothing 0.1 --clip 1 --held-out 0.2 --limit 5 --seed 4 --teacher t.pt"
        " --temperature 2 --alpha 0.5 --warmup 0.1 --patience 3 --accumulate 2 --freeze 'layer1.*'"
        " --device cpu --compile --log csv --workers 1 --resume --overwrite"
    )
    assert run(capsys, *words)[0] == 0
    ((_, given),) = verbs.calls
    assert given["options"] == FinetuneOptions(
        epochs=7, lr=0.2, optimizer="adamw", schedule="cosine", batch_size=9, weight_decay=0.1,
        momentum=0.5, warmup=0.1, patience=3, accumulate=2, freeze=("layer1.*",), device="cpu",
        compile=True, log=("csv",), temperature=2.0, alpha=0.5, amp="no", ema=0.9, augment="none",
        workers=1, label_smoothing=0.1, clip=1.0, held_out=0.2, limit=5, seed=4,
    )  # fmt: skip
    assert (given["teacher"], given["resume"]) == (Path("t.pt"), True)


def test_every_export_flag_arrives_in_the_library(verbs, capsys):
    words = shlex.split(
        "export m.pt --opset 18 --device cpu,cuda --batch 1,32 --threads 2 --runs 9"
        " --tolerance 0.01 --seed 2 --against d.pt --overwrite"
    )
    assert run(capsys, *words)[0] == 0
    assert run(capsys, "export", "m.pt", "--no-benchmark", "--overwrite")[0] == 0
    (_, given), (_, untimed) = verbs.calls
    expected = ExportOptions(
        opset=18,
        devices=("cpu", "cuda"),
        batches=(1, 32),
        threads=2,
        runs=9,
        tolerance=0.01,
        seed=2,
    )
    assert untimed["options"] == ExportOptions(benchmark=False)
    assert given["options"] == expected
    assert (given["against"], given["overwrite"]) == (Path("d.pt"), True)


@pytest.mark.parametrize(
    ("words", "model", "data"),
    [
        (["m.pt"], Path("m.pt"), None),
        (["m.pt", "--data", "d"], Path("m.pt"), "d"),
        (["images"], None, "images"),
        (["images", "--model", "m.pt"], Path("m.pt"), "images"),
        (["digits"], None, "digits"),
        (["--model", "m.pt", "--data", "d"], Path("m.pt"), "d"),
    ],
)
def test_analyze_tells_models_from_data(verbs, capsys, words, model, data):
    Path("images").mkdir()
    assert run(capsys, "analyze", *words)[0] == 0
    ((_, given),) = verbs.calls
    assert (given["model"], given["data"]) == (model, data)


def test_analyze_shows_how_important_layers_are_and_how_far_the_measures_agree(verbs, capsys):
    code, out, _ = run(capsys, "analyze", "m.pt", "--data", "digits", "--importance")
    assert code == 0
    ((_, given),) = verbs.calls
    assert given["options"].importance
    shown = " ".join(out.split())
    assert "importance of" in shown
    assert "energy, probe: 0.41; energy, sensitivity: undefined" in shown


def test_analyze_hands_the_signals_to_compare_with_the_oracle_on(verbs, capsys):
    words = ("m.pt", "--data", "digits", "--oracle", "--signals", "l1, taylor,l1")
    assert run(capsys, "analyze", *words)[0] == 0
    options = verbs.calls[-1][1]["options"]
    assert (options.oracle, options.signals) == (True, ("l1", "taylor"))


def test_signals_to_compare_are_refused_without_the_oracle(verbs, capsys):
    code, _, err = run(capsys, "analyze", "m.pt", "--data", "digits", "--signals", "l1,taylor")
    assert code == 2
    assert "--oracle" in err


@pytest.mark.parametrize(
    ("words", "flag", "next_step"),
    [
        ("m.pt --reduce", "--reduce", "--data"),
        ("m.pt --embedding raw", "--embedding", "--data"),
        ("digits --oracle", "--oracle", "--model"),
        ("digits --tolerance 0.2", "--tolerance", "--reduce"),
        ("digits --per-class 5", "--per-class", "--write-subset"),
        ("digits --subset-rule confusion", "--subset-rule", "--write-subset"),
        ("digits --embedding-epochs 3", "--embedding-epochs", "--embedding autoencoder"),
    ],
)
def test_an_option_of_analyze_that_nothing_follows_is_refused(
    verbs, capsys, words, flag, next_step
):
    code, _, err = run(capsys, "analyze", *words.split())
    assert code == 2
    assert f"error: {flag} " in err
    assert next_step in err
    assert not verbs.calls


def test_a_number_of_images_to_open_is_one_number(verbs, capsys):
    code, _, err = run(capsys, "analyze", "digits", "--survey", "5,9")
    assert code == 2
    assert "a whole number above 0, or all" in err
    assert not verbs.calls


def test_a_place_that_is_not_there_is_named(verbs, capsys):
    code, _, err = run(capsys, "analyze", "nowhere", "--repeats", "3")
    assert code == 2
    assert "there is neither a model nor a data set called nowhere" in err
    assert not verbs.calls


def test_a_way_of_recording_is_refused_without_a_record(verbs, capsys):
    words = ("m.pt", "--data", "digits", "--record-learnability-mode", "training")
    code, _, err = run(capsys, "finetune", *words)
    assert code == 2
    assert "--record-learnability FILE.parquet" in err
    assert not verbs.calls


def test_the_table_of_the_oracle_has_the_best_signal_first(verbs, capsys):
    words = ("analyze", "m.pt", "--data", "digits", "--oracle")
    out = run(capsys, *words)[1]
    assert out.index("taylor") < out.index("random")
    assert "0.71" in out


@pytest.mark.parametrize(
    "words", [["m.pt", "--model", "other.pt"], ["digits", "--data", "elsewhere"]]
)
def test_analyze_refuses_two_of_a_kind(verbs, capsys, words):
    code, _, err = run(capsys, "analyze", *words)
    assert code == 2
    assert "names another" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["evaluate", "m.pt", "--data", "d", "--min-accuracy", "0.9"], 0),
        (["evaluate", "m.pt", "--data", "d", "--min-accuracy", "91%"], 1),
        (["evaluate", "m.pt", "--data", "d", "--against", "dense.pt", "--max-drop", "0.06"], 0),
        (["evaluate", "m.pt", "--data", "d", "--against", "dense.pt", "--max-drop", "1%"], 1),
        (["finetune", "m.pt", "--data", "d", "--min-accuracy", "0.9"], 0),
        (["finetune", "m.pt", "--data", "d", "--min-accuracy", "0.95"], 1),
        (["finetune", "m.pt", "--data", "d", "--teacher", "dense.pt", "--max-drop", "0.05"], 0),
        (["finetune", "m.pt", "--data", "d", "--teacher", "dense.pt", "--max-drop", "0.01"], 1),
        (["export", "m.pt", "--min-speedup", "1.5"], 0),
        (["export", "m.pt", "--min-speedup", "1.7"], 1),
    ],
)
def test_a_gate_that_is_not_met_exits_1_and_keeps_the_figures(verbs, capsys, words, code):
    verbs.accuracy["dense.pt"] = 0.95
    got, found = envelope(capsys, *words)
    assert (got, found["ok"]) == (code, code == 0)
    assert found["data"]
    if code:
        assert found["error"]["code"] == "GATE_NOT_MET"


def test_a_missed_gate_stops_a_pipe_but_keeps_the_file(verbs, capsys):
    code, out, err = run(
        capsys, "finetune", "m.pt", "--data", "d", "--min-accuracy", "0.99", "-o", "tuned.pt"
    )
    assert (code, out) == (1, "")
    assert "--min-accuracy asks for 0.99" in err
    assert Path("tuned.pt").exists()


def test_a_speed_up_that_was_not_measured_misses_its_gate(verbs, capsys):
    verbs.speedup = None
    code, _, err = run(capsys, "export", "m.pt", "--min-speedup", "1.1")
    assert code == 1
    assert "--against" in err


def test_the_model_to_compare_with_is_known_before_the_first_is_scored(verbs, capsys):
    words = shlex.split("evaluate m.pt --data d --against dense.pt --max-drop 50%")
    assert run(capsys, *words)[0] == 0
    (_, first), (_, second) = verbs.calls
    assert (first["model"], first["against"]) == (Path("m.pt"), Path("dense.pt"))
    assert (second["model"], second.get("against")) == (Path("dense.pt"), None)


@pytest.mark.parametrize(
    "words",
    [
        ["finetune", "m.pt", "--data", "d", "--teacher", "none", "--max-drop", "0.1"],
        ["evaluate", "m.pt", "--data", "d", "--max-drop", "0.1"],
        ["evaluate", "m.pt", "--data", "d", "--min-agreement", "0.9"],
        ["export", "m.pt", "--onnx", "slim.pt"],
        ["export", "m.pt", "--min-speedup", "2", "--no-benchmark"],
        ["export", "m.pt", "--batch", "1,x"],
        ["export", "m.pt", "--device", "cpu,,cuda"],
        ["prune", "m.pt"],
        ["prune", "m.pt", "--flops", "0"],
        ["prune", "m.pt", "--flops", "1.5"],
        ["prune", "m.pt", "--flops", "abc"],
        ["prune", "m.pt", "--flops", "0.5", "--arch-arg", "width=64"],
        ["prune", "m.pt", "--flops", "0.5", "--arch", "n", "--arch-arg", "width"],
        ["prune", "m.pt", "--flops", "0.5", "--input-size", "big"],
        ["prune", "m.pt", "--flops", "0.5", "--input-size", "0"],
        ["prune", "m.pt", "--flops", "0.5", "--input-shape", "3x0x4"],
        ["prune", "m.pt", "--flops", "0.5", "--input-shape", "a b=3"],
        ["prune", "m.pt", "--flops", "0.5", "--mean", "a,b"],
        ["prune", "m.pt", "--flops", "0.5", "--align", "0"],
        ["prune", "m.pt", "--flops", "0.5", "--json", "-q"],
        ["evaluate", "m.pt", "--data", "d", "--min-accuracy", "nine"],
        ["evaluate", "m.pt", "--data", "d", "--min-accuracy", "90"],
    ],
)
def test_options_that_make_no_sense_are_usage_errors_before_any_work(verbs, capsys, words):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == "" or json.loads(out)["ok"] is False
    assert "error: " in err
    assert "hint: " in err
    assert verbs.calls == []


def test_every_run_is_remembered_for_the_next_verb(verbs, capsys):
    run(capsys, "prune", "m.pt", "--flops", "0.5")
    _, _, err = run(capsys, "finetune", "--data", "d")
    assert "working on m.pruned.pt, the newest output of the last run" in err
    run(capsys, "export")
    code, _, err = run(capsys, "evaluate", "--data", "d")
    assert code == 0
    assert [str(call["model"]) for _, call in verbs.calls] == [
        "m.pt",
        "m.pruned.pt",
        "m.pruned.finetuned.pt",
        "m.pruned.finetuned.onnx",
    ]


def test_progress_in_a_log_names_each_stage_once(verbs, capsys):
    _, _, err = run(capsys, "prune", "m.pt", "--flops", "0.5")
    assert err.count("working\n") == 1


@pytest.mark.parametrize(("flag", "lines"), [("-q", 1), ("--json", 1)])
def test_progress_is_seen_on_a_terminal_whatever_becomes_of_stdout(
    verbs, capsys, monkeypatch, flag, lines
):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = run(capsys, "prune", "m.pt", "--flops", "0.5", flag)
    assert (code, len(out.splitlines())) == (0, lines)
    assert "working" not in out
    assert "working" in err
    assert "41M -> 20.3M" not in err  # the report is talk


def test_progress_on_a_terminal_is_a_bar_but_not_in_ci(verbs, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "\u2501" in run(capsys, "prune", "m.pt", "--flops", "0.5")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("CI", "true")
    assert "\u2501" not in run(capsys, "prune", "m.pt", "--flops", "0.5")[2]
