"""The generated parts of README.md; run this file to write them anew."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import readme_complexity
import readme_learnability
import readme_signals

from prunecli.complexity.relation import FORMS
from prunecli_cli.main import EXIT_CODES, root_command
from prunecli_cli.methods import FIRST, Method, markdown_table, registries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prunecli.registry import Registry

README = Path(__file__).resolve().parents[1] / "README.md"
BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


def section(text: str, name: str) -> str:
    """Return what stands between the markers of a section."""
    match = re.search(rf"<!-- begin: {name} -->\n(.*?)<!-- end: {name} -->", text, re.DOTALL)
    assert match is not None, f"README.md has no section {name!r}"
    return match[1]


def command(text: str, name: str) -> str:
    """Return the one line of shell in a section."""
    (line,) = [line for line in section(text, name).splitlines() if not line.startswith("```")]
    return line


def generated() -> dict[str, str]:
    """Return the text of every generated section."""
    measured = readme_signals.complete(_read("taxonomy.csv"))
    return {
        "verbs": _verbs(),
        "exit-codes": _exit_codes(),
        "methods": _methods(),
        "sweep": _sweep(),
        "search": _search(),
        "recovery": _recovery(),
        "defaults": _defaults(),
        "iterative": _iterative(),
        "repair": _repair(),
        "allocations": _allocations(),
        "oracle": _oracle(),
        "oracle-taylor": table(*readme_signals.oracle_taylor(_read("oracle.csv"))),
        "taxonomy": table(*readme_signals.taxonomy_top(measured)),
        "taxonomy-presets": table(*readme_signals.taxonomy_presets(measured)),
        "taxonomy-parts": table(*readme_signals.taxonomy_parts(measured)),
        "curves": table(*readme_signals.curves(_read("curves.csv"))),
        "weights": _weights(),
        "weights-trained": _weights_trained(),
        "dead-units": _dead_units(),
        "alignment": _alignment(),
        "networks": _networks(),
        "zoo": _zoo(),
        "zoo-missed": _zoo_missed(),
        "zoo-peer": _zoo_peer(),
        "coupling": _coupling(),
        "speed": _speed(),
        "latency": _latency(),
        "learnability-runs": table(*readme_learnability.runs(_read("learnability_runs.csv"))),
        "learnability": table(*readme_learnability.agreement(_read("learnability.csv"))),
        "learnability-uses": table(*readme_learnability.uses(_read("learnability_uses.csv"))),
        "csg": table(*readme_complexity.estimates(_read("csg.csv"))),
        "csg-embeddings": table(
            *readme_complexity.embeddings(_read("csg_embeddings.csv"), _read("csg_published.csv"))
        ),
        "csg-reference": table(*readme_complexity.reference(_read("csg_reference.csv"))),
        "csg-scale": table(*readme_complexity.scale(_read("csg_scale.csv"))),
        "csg-tsne": table(*readme_complexity.tsne(_read("csg_tsne.csv"))),
        "listing": _listing(),
        "expected-error": _expected_error(),
        "kept-flops": _kept_flops(),
        "kept-flops-relation": _kept_flops_relation(),
    }


def write(text: str) -> str:
    """Return the README with all generated sections renewed."""
    for name, body in generated().items():
        old = f"<!-- begin: {name} -->\n{section(text, name)}<!-- end: {name} -->"
        text = text.replace(old, f"<!-- begin: {name} -->\n{body}\n<!-- end: {name} -->")
    return text


def _verbs() -> str:
    rows = [
        f"| `{name}` | {(command.help or '').partition(chr(10))[0]} |"
        for name, command in root_command().commands.items()
    ]
    return "\n".join(["| verb | what it does |", "|---|---|", *rows])


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| exit code | meaning |", "|---|---|", *rows])


def _methods() -> str:
    known: dict[str, Registry[object]] = {registry.kind: registry for registry in registries()}
    tables = []
    for kind in FIRST:
        listed = tuple(
            Method(kind, entry.name, entry.summary, entry.source) for entry in known[kind]
        )
        tables.append(markdown_table(listed, of=kind))
    return "\n\n".join(tables)


def _read(name: str) -> list[dict[str, str]]:
    path = BENCHMARKS / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(text: str) -> str:
    return f"{100 * float(text):.1f} %" if text else ""


def _sweep() -> str:
    """Return accuracy (and loss) at every budget, one column per signal."""
    rows = _read("sweep.csv")
    signals = list(dict.fromkeys(row["signal"] for row in rows if row["asked"]))
    cells = {
        (row["asked"], row["signal"]): f"{_percent(row['accuracy'])} ({float(row['loss']):.2f})"
        for row in rows
    }
    keeps = dict.fromkeys(row["asked"] for row in rows if row["asked"])
    head = ("FLOPs kept, accuracy (loss)", *signals)
    dense = [("1 (dense)", *(cells["", "dense"] for _ in signals))] if rows else []
    return table(head, [*dense, *((keep, *(cells[keep, name] for name in signals))
                                  for keep in keeps)])  # fmt: skip


def _search() -> str:
    """Return, per budget, what `auto` took beside the best and the default on test images."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in _read("search.csv"):
        found.setdefault(row["keep"], []).append(row)
    rows = []
    for keep, candidates in found.items():
        by_name = {row["signal"]: row for row in candidates}
        best = max(candidates, key=lambda row: float(row["test_accuracy"]))
        (taken,) = [row for row in candidates if row["taken"] == "1"]
        shown = [f"{row['signal']}: {_percent(row['test_accuracy'])}" for row in (taken, best)]
        others = [_percent(by_name[name]["test_accuracy"]) for name in ("l1", "random")]
        rows.append((keep, *shown, *others))
    return table(("FLOPs kept", "taken by auto", "best on test images", "l1", "random"), rows)


def _recovery() -> str:
    rows = [
        (row["checkpoint"], row["row"], row["seed"], _percent(row["kept_flops"]),
         _percent(row["before"]), _percent(row["after"]))
        for row in _read("recovery.csv")
    ]  # fmt: skip
    return table(("checkpoint", "network", "seed", "FLOPs kept", "before training", "after"), rows)


def _iterative() -> str:
    head = ("checkpoint", "network", "FLOPs kept", "updates", "shrunk", "fine-tuned", "ms/update")
    rows = [
        (row["checkpoint"], row["row"], _percent(row["kept_flops"]), row["updates"],
         _percent(row["cut"]), _percent(row["after"]),
         f"{row['first_ms']} to {row['last_ms']}" if row["first_ms"] else "")
        for row in _read("iterative.csv")
    ]  # fmt: skip
    return table(head, rows)


def _defaults() -> str:
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in _read("defaults.csv"):
        key = (row["checkpoint"], row["signal"], row["aggregate"], row["allocation"])
        groups.setdefault(key, []).append(row)
    rows = [
        (*key, *(_percent(str(mean(float(row[kept]) for row in group))) for kept in ("0.7", "0.5")))
        for key, group in groups.items()
        if key[3] != "global" and key[2] != "mean"
    ]
    head = ("checkpoint", "signal", "aggregate", "allocation", "at 0.7", "at 0.5")
    return table(head, rows)


def _repair() -> str:
    cuts: dict[tuple[str, ...], dict[str, list[dict[str, str]]]] = {}
    for row in _read("repair.csv"):
        key = tuple(row[name] for name in ("checkpoint", "kept", "signal", "allocation", "stream"))
        cuts.setdefault(key, {}).setdefault(row["step"], []).append(row)
    steps = ("dense", "cut", "bias", "bn", "lstsq")
    rows = [
        (
            *key,
            str(len(cut["all"])),
            *(_accuracy(cut.get(step, [])) for step in steps),
            cut["all"][0]["scored"],
            *(_seconds(cut["all"], clock) for clock in ("seconds", "cpu_seconds")),
        )
        for key, cut in cuts.items()
    ]
    facts = ("checkpoint", "FLOPs kept", "signal", "allocation", "residual stream", "seeds")
    return table((*facts, *steps, "scored on", "seconds", "of the processor"), rows)


def _accuracy(rows: list[dict[str, str]]) -> str:
    return _percent(str(mean(float(row["accuracy"]) for row in rows))) if rows else ""


def _seconds(rows: list[dict[str, str]], clock: str) -> str:
    known = [float(row[clock]) for row in rows if row[clock]]
    return f"{mean(known):.0f}" if known else ""


def _allocations() -> str:
    """Return one row per rule: accuracy after the cut / after batch norm, and the loss after it.

    The rule with the best mean accuracy stands first.
    """
    rows = _read("allocations.csv")
    budgets = sorted({row["asked"] for row in rows if row["signal"]}, reverse=True)
    cells = {
        (row["checkpoint"], row["signal"], row["allocation"], row["importance"], row["asked"],
         row["step"]): row
        for row in rows
    }  # fmt: skip
    table_rows = [
        (
            row["checkpoint"],
            "",
            "dense",
            *[f"{_percent(row['accuracy'])}, {row['loss']}"] * len(budgets),
        )
        for row in rows
        if row["step"] == "dense"
    ]
    reached: dict[tuple[str, ...], list[float]] = {}
    for key, row in cells.items():
        if key[-1] == "bn":
            reached.setdefault(key[:4], []).append(float(row["accuracy"]))
    for key in sorted(reached, key=lambda key: -mean(reached[key])):
        found = []
        for budget in budgets:
            cut, norm = (cells.get((*key, budget, step)) for step in ("cut", "bn"))
            found.append(
                f"{_percent(cut['accuracy'])} / {_percent(norm['accuracy'])}, {norm['loss']}"
                if cut and norm
                else ""
            )
        rule = f"{key[2]} ({key[3]})" if key[3] else key[2]
        table_rows.append((key[0], key[1], rule, *found))
    head = ("checkpoint", "signal", "allocation", *(f"at {budget}" for budget in budgets))
    return table(head, table_rows)


def _weights() -> str:
    """Return accuracy right after zeroing weights, as they are / with batch norm estimated anew."""
    rows = [row for row in _read("weights.csv") if not row["training"]]
    cells = [
        (
            row["checkpoint"],
            row["signal"] or "dense",
            row["allocation"],
            _percent(row["sparsity"]),
            _percent(row["masked"]),
            _percent(row["bn"]),
            f"{int(row['bytes']) / 1000:.0f} kB",
        )
        for row in rows
    ]
    head = ("checkpoint", "signal", "allocation", "zero", "masked", "batch norm anew", "file")
    return table(head, cells)


def _weights_trained() -> str:
    rows = [
        (row["checkpoint"], row["allocation"], _percent(row["sparsity"]), row["training"],
         _percent(row["trained"]), f"{int(row['bytes']) / 1000:.0f} kB")
        for row in _read("weights.csv")
        if row["training"]
    ]  # fmt: skip
    return table(("checkpoint", "allocation", "zero", "zeroed", "accuracy", "file"), rows)


def _dead_units() -> str:
    """Return one row per way of removing units: means over the seeds."""
    found: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _read("dead_units.csv"):
        found.setdefault((row["method"], row["propagated"]), []).append(row)

    def average(rows: list[dict[str, str]], name: str) -> float:
        return mean(float(row[name] or "nan") for row in rows)

    body = [
        (
            *key,
            f"{average(rows, 'params'):.0f}",
            "-".join(f"{average(rows, name):.0f}" for name in ("conv1", "conv2", "fc1")),
            "" if not rows[0]["after_cut"] else _points(average(rows, "after_cut")),
            _points(average(rows, "accuracy")),
            " ".join(_points(float(row["accuracy"])) for row in rows),
        )
        for key, rows in found.items()
    ]
    head = ("units by", "bias", "parameters", "widths", "after the last cut", "trained", "by seed")
    return table(head, body)


def _points(share: float) -> str:
    return f"{100 * share:.2f} %"


SCOPES = ("per_layer", "pooled", "pooled_l2")


def _oracle() -> str:
    """Return one row per signal: its correlations with the size of the loss change, by network."""
    found = [row for row in _read("oracle.csv") if row["against"] == "size"]
    networks = dict.fromkeys(row["checkpoint"] for row in found)
    cells = {
        (row["signal"], row["checkpoint"]): " / ".join(
            f"{float(row[scope]):.2f}" if row[scope] else "-" for scope in SCOPES
        )
        for row in found
    }
    rows = [
        (signal, *(cells.get((signal, network), "") for network in networks))
        for signal in dict.fromkeys(row["signal"] for row in found)
    ]
    return table(("signal", *networks), rows)


def _alignment() -> str:
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in _read("alignment.csv"):
        if row["experiment"] == "network" and row["threads"] == "1":
            key = (row["align"], row["network"], row["batch"])
            found.setdefault(key, []).append(float(row["dense_ms"]) / float(row["ms"]))
    networks = sorted({key[1] for key in found})
    rows = [
        (align, *(" / ".join(f"{mean(found[align, name, batch]):.2f}" for batch in ("1", "8"))
                  for name in networks))
        for align in dict.fromkeys(key[0] for key in found)
    ]  # fmt: skip
    return table(("multiples of", *networks), rows)


def _networks() -> str:
    rows = _read("networks.csv")
    proven = [row for row in rows if row["outcome"] == "proven"]
    if not proven:
        return "not measured yet"
    modes = {mode: sum(row["mode"] == mode for row in proven) for mode in ("module", "graph")}
    kept = [float(row["kept_flops"]) for row in proven]
    worst = max(float(row["max_rel_error"]) for row in proven)
    return (
        f"{len(proven)} of {len(rows)} networks are cut and proven, {modes['module']} in module "
        f"mode and {modes['graph']} in graph mode; FLOPs kept {min(kept):.3f} to {max(kept):.3f}; "
        f"largest relative error {worst:.1e}."
    )


KINDS = (
    ("torchvision", "classification"), ("torchvision", "segmentation"),
    ("torchvision", "detection"), ("torchvision", "video"), ("torchvision", "flow"),
    ("timm", "classification"),
)  # fmt: skip


def _zoo() -> str:
    """Return the totals of the zoos, with those of Torch-Pruning on the same models."""
    ours, peer = _read("zoo.csv"), _read("zoo_torch_pruning.csv")
    rows = []
    for source, kind in KINDS:
        own = [row for row in ours if (row["source"], row["kind"]) == (source, kind)]
        proven = [row for row in own if row["outcome"] == "proven"]
        others = [row for row in peer if (row["source"], row["kind"]) == (source, kind)]
        runs = sum(row["outcome"] == "runs" for row in others)
        kept = [float(row["kept_flops"]) for row in proven]
        rows.append(
            (
                source if source == "timm" else f"{source}, {kind}",
                str(len(own)),
                str(len(proven)),
                str(sum(row["mode"] == "graph" for row in proven)),
                f"{min(kept):.3f} to {max(kept):.3f}" if kept else "",
                f"{max(float(row['max_rel_error']) for row in proven):.0e}" if proven else "",
                f"{runs} of {len(others)}" if others else "",
            )
        )
    head = ("models", "run", "proven", "in graph mode", "FLOPs kept", "largest error",
            "Torch-Pruning runs")  # fmt: skip
    return table(head, rows)


def _zoo_missed() -> str:
    missed = [row for row in _read("zoo.csv") if row["outcome"] != "proven"]
    if not missed:
        return "None ended otherwise."
    return "\n".join(f"- `{row['model']}`: {row['outcome']}, {row['note'][:120]}" for row in missed)


def _zoo_peer() -> str:
    """Return how the models ended that Torch-Pruning was run on."""
    rows = _read("zoo_torch_pruning.csv")
    counts = Counter(row["outcome"] for row in rows)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    kept = [float(row["kept_flops"]) for row in rows if row["outcome"] == "runs"]
    span = f"{min(kept):.2f} to {max(kept):.2f}" if kept else "none"
    return f"Torch-Pruning, {len(rows)} models: {told}; FLOPs kept where it runs: {span}."


def _coupling() -> str:
    rows = [
        (row["model"], f"{float(row['parameters']) / 1e6:.0f} M", row["nodes"],
         row["trace_s"], row["couple_s"], row["cost_s"], row["allocate_s"], row["peak_gib"])
        for row in _read("coupling_scale.csv")
    ]  # fmt: skip
    head = ("network", "parameters", "graph nodes", "trace, s", "coupling, s", "costs, s",
            "allocation, s", "peak GiB")  # fmt: skip
    return table(head, rows)


def _speed() -> str:
    rows = _read("speed.csv")
    names = ("command", "seconds", "peak_gib", "trace_to_cut_s", "couple_s", "prove_s")
    head = ("command", "seconds", "peak GiB", "trace to cut, s", "coupling, s", "proof, s")
    return table(head, [tuple(row[name] for name in names) for row in rows])


def _latency() -> str:
    rows = [
        (row["network"], row["budget"], _percent(row["kept_flops"]), _percent(row["predicted"]),
         _percent(row["real"]), f"{1 / float(row['real']):.2f}", row["dense_ms"], row["slim_ms"])
        for row in _read("latency.csv")
    ]  # fmt: skip
    head = ("network", "budget", "FLOPs kept", "time kept, predicted", "real", "speed-up",
            "dense ms", "slim ms")  # fmt: skip
    return table(head, rows)


def _listing() -> str:
    """Return what it takes to find out about very many files."""
    rows = [
        (row["what"], f"{int(row['files']):,}", row["seconds"], row["peak_mb"])
        for row in _read("listing.csv")
    ]
    return table(("what", "files", "seconds", "MB more"), rows)


def _expected_error() -> str:
    """Return, per way of measuring, the paper's form and the one that is taken."""
    rows = []
    for row in _read("expected_error_fits.csv"):
        if row["form"] == "csg" or row["taken"] == "1":
            form = FORMS.get(row["form"])
            size = " + c log10(images)" if row["form"] == "overlap-and-size" else ""
            formula = f"{form.predicted} = a + b {form.predictor}{size}"
            shown = f"**{formula}**" if row["taken"] == "1" else formula
            misses = [f"{row[name]}" for name in
                      ("left_out", "digits_left_out", "mnist_left_out", "cifar_left_out",
                       "half_interval")]  # fmt: skip
            through = f"{row['embedding']}, {row['volume']}"
            inside = f"{100 * float(row['inside']):.0f} %"
            rows.append((through, shown, row["r"], f"{float(row['p']):.0e}", *misses, inside))
    head = ("seen through", "form", "r", "p", "one left out", "digits left out",
            "MNIST left out", "CIFAR-10 left out", "interval, +-", "really inside")  # fmt: skip
    return table(head, rows)


def _kept_flops() -> str:
    """Return the loss in points at every budget, and the least that loses one point."""
    lines: dict[str, list[dict[str, str]]] = {}
    for row in _read("kept_flops.csv"):
        lines.setdefault(row["point"], []).append(row)
    least = {row["point"]: row["least"] for row in _read("kept_flops_least.csv")}
    keeps = [row["asked"] for row in next(iter(lines.values()), [])]
    rows = [
        (name, f"{float(found[0]['csg']):.2f}", _percent(found[0]["error"]),
         *(f"{100 * float(row['lost']):+.1f}" for row in found[1:]), least[name])
        for name, found in sorted(lines.items(), key=lambda item: float(item[1][0]["csg"]))
    ]  # fmt: skip
    head = ("data", "CSG", "dense error", *keeps[1:], "kept at 1 point")
    return table(head, rows)


def _kept_flops_relation() -> str:
    """Return how well a figure of the data foretells the least kept FLOPs."""
    rows = [
        (row["over"], row["data_sets"], row["by"], row["spearman"], row["p"],
         *(f"x{float(row[name]):.1f}" for name in
           ("left_out", "mean_left_out", "family_left_out", "mean_family_left_out")))
        for row in _read("kept_flops_relation.csv")
    ]  # fmt: skip
    head = ("data sets", "number", "foretold by", "Spearman", "p", "one left out", "by the mean",
            "all of its kind left out", "by the mean")  # fmt: skip
    return table(head, rows)


if __name__ == "__main__":
    README.write_text(write(README.read_text(encoding="utf-8")), encoding="utf-8")
