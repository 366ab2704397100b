"""The generated parts of README.md; run this file to write them anew."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

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
    return {
        "verbs": _verbs(),
        "exit-codes": _exit_codes(),
        "methods": _methods(),
        "recovery": _recovery(),
        "defaults": _defaults(),
        "repair": _repair(),
        "oracle": _oracle(),
        "alignment": _alignment(),
        "networks": _networks(),
        "zoo": _zoo(),
        "zoo-missed": _zoo_missed(),
        "zoo-peer": _zoo_peer(),
        "coupling": _coupling(),
        "speed": _speed(),
        "csg": _csg(),
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


def _recovery() -> str:
    rows = [
        (row["checkpoint"], row["row"], row["seed"], _percent(row["kept_flops"]),
         _percent(row["before"]), _percent(row["after"]))
        for row in _read("recovery.csv")
    ]  # fmt: skip
    return table(("checkpoint", "network", "seed", "FLOPs kept", "before training", "after"), rows)


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


def _csg() -> str:
    rows = [
        (row["data"], row["embedding"], row["volume"], f"{float(row['csg_mean']):.2f}",
         f"{float(row['csg_min']):.2f} to {float(row['csg_max']):.2f}", row["csg_seconds"])
        for row in _read("csg.csv")
    ]  # fmt: skip
    return table(("data", "embedding", "volume", "CSG", "3 seeds", "seconds"), rows)


if __name__ == "__main__":
    README.write_text(write(README.read_text(encoding="utf-8")), encoding="utf-8")
