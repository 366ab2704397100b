"""The tables of measured figures, from what the scripts in `tests/benchmarks/` wrote."""

from __future__ import annotations

from collections import Counter
from statistics import mean, median

from prunecli.complexity.relation import FORMS
from tests.docs import complexity, learnability, signals
from tests.docs.markdown import Rows, percent, read, table


def measured() -> dict[str, str]:
    """Return every generated section of `tests/benchmarks/README.md`."""
    ranked = signals.complete(read("taxonomy.csv"))
    return {
        "sweep": _sweep(),
        "search": _search(),
        "recovery": _recovery(),
        "defaults": _defaults(),
        "iterative": _iterative(),
        "learning": _learning(),
        "recipes": _recipes(),
        "reconstruction-scale": _reconstruction_scale(),
        "budgets": _budgets(),
        "gates-step": _gates_step(),
        "processes": _processes(),
        "repair": _repair(),
        "unlabelled": _unlabelled(),
        "saliency": _saliency(),
        "block-deletion": _block_deletion(),
        "allocations": _allocations(),
        "oracle": _oracle(),
        "oracle-taylor": table(*signals.oracle_taylor(read("oracle.csv"))),
        "taxonomy": table(*signals.taxonomy_top(ranked)),
        "taxonomy-presets": table(*signals.taxonomy_presets(ranked)),
        "taxonomy-parts": table(*signals.taxonomy_parts(ranked)),
        "curves": table(*signals.curves(read("curves.csv"))),
        "weights": _weights(),
        "weights-trained": _weights_trained(),
        "dead-units": _dead_units(),
        "alignment": _alignment(),
        "speedup": _speedup(),
        "networks": _networks(),
        "packages": _packages(),
        "zoo": _zoo(),
        "zoo-missed": _zoo_missed(),
        "structure": _structure(),
        "proof-time": _proof_time(),
        "random-networks": _random_networks(),
        "licences": _licences(),
        "zoo-peer": _zoo_peer(),
        "coupling": _coupling(),
        "speed": _speed(),
        "precision": _precision(),
        "dynamic": _dynamic(),
        "bridgeout": _bridgeout(),
        "latency": _latency(),
        "int8": _int8(),
        "learnability-runs": table(*learnability.runs(read("learnability_runs.csv"))),
        "learnability": table(*learnability.agreement(read("learnability.csv"))),
        "learnability-uses": table(*learnability.uses(read("learnability_uses.csv"))),
        "csg": table(*complexity.estimates(read("csg.csv"))),
        "csg-embeddings": table(
            *complexity.embeddings(read("csg_embeddings.csv"), read("csg_published.csv"))
        ),
        "csg-reference": table(*complexity.reference(read("csg_reference.csv"))),
        "csg-scale": table(*complexity.scale(read("csg_scale.csv"))),
        "csg-tsne": table(*complexity.tsne(read("csg_tsne.csv"))),
        "listing": _listing(),
        "strangers": _strangers(),
        "mutations": _mutations(),
        "interruptions": _interruptions(),
        "startup": _startup(),
        "expected-error": _expected_error(),
        "kept-flops": _kept_flops(),
        "kept-flops-relation": _kept_flops_relation(),
    }


def _sweep() -> str:
    """Return accuracy (and loss) at every budget, one column per signal."""
    rows = read("sweep.csv")
    signals = list(dict.fromkeys(row["signal"] for row in rows if row["asked"]))
    cells = {
        (row["asked"], row["signal"]): f"{percent(row['accuracy'])} ({float(row['loss']):.2f})"
        for row in rows
    }
    keeps = dict.fromkeys(row["asked"] for row in rows if row["asked"])
    head = ("FLOPs kept, accuracy (loss)", *signals)
    dense = [("1 (dense)", *(cells["", "dense"] for _ in signals))] if rows else []
    return table(head, [*dense, *((keep, *(cells[keep, name] for name in signals))
                                  for keep in keeps)])  # fmt: skip


def _search() -> str:
    """Return, per budget, what `auto` took beside the best and the default on test images."""
    found: dict[str, Rows] = {}
    for row in read("search.csv"):
        found.setdefault(row["keep"], []).append(row)
    rows = []
    for keep, candidates in found.items():
        by_name = {row["signal"]: row for row in candidates}
        best = max(candidates, key=lambda row: float(row["test_accuracy"]))
        (taken,) = [row for row in candidates if row["taken"] == "1"]
        shown = [f"{row['signal']}: {percent(row['test_accuracy'])}" for row in (taken, best)]
        others = [percent(by_name[name]["test_accuracy"]) for name in ("l1", "random")]
        rows.append((keep, *shown, *others))
    return table(("FLOPs kept", "taken by auto", "best on test images", "l1", "random"), rows)


def _recovery() -> str:
    rows = [
        (row["checkpoint"], row["row"], row["seed"], percent(row["kept_flops"]),
         percent(row["before"]), percent(row["after"]))
        for row in read("recovery.csv")
    ]  # fmt: skip
    return table(("checkpoint", "network", "seed", "FLOPs kept", "before training", "after"), rows)


def _iterative() -> str:
    head = ("checkpoint", "network", "FLOPs kept", "updates", "shrunk", "fine-tuned", "ms/update")
    rows = [
        (row["checkpoint"], row["row"], percent(row["kept_flops"]), row["updates"],
         percent(row["cut"]), percent(row["after"]),
         f"{row['first_ms']} to {row['last_ms']}" if row["first_ms"] else "")
        for row in read("iterative.csv")
    ]  # fmt: skip
    return table(head, rows)


def _learning() -> str:
    """Return one row per method, network, budget and length: the mean over its seeds."""
    found: dict[tuple[str, ...], Rows] = {}
    for row in read("learning.csv"):
        key = ("network", "flops", "epochs", "images", "method")
        found.setdefault(tuple(row[name] for name in key), []).append(row)
    rows = []
    for (network, flops, epochs, images, method), group in found.items():
        after = [float(row["after"]) for row in group]
        spread = f" ({min(after):.3f} to {max(after):.3f})" if len(after) > 1 else ""
        rows.append(
            (network, flops, epochs, "all" if images == "0" else images, method,
             percent(group[0]["kept_flops"]), percent(str(mean(after))) + spread,
             str(len(group)), group[0]["precision"])
        )  # fmt: skip
    head = ("network", "asked", "epochs", "images", "method", "FLOPs kept", "test images", "seeds",
            "precision")  # fmt: skip
    return table(head, sorted(rows, key=lambda row: (row[:4], -float(row[6].split()[0]))))


def _recipes() -> str:
    rows = [
        (
            row["flops"],
            row["recipe"],
            row["epochs"],
            percent(row["held_out"]),
            percent(row["after"]),
            row["precision"],
        )
        for row in read("recipes.csv")
    ]
    return table(("asked", "recipe", "epochs", "held out", "test images", "precision"), rows)


def _reconstruction_scale() -> str:
    rows = [
        (row["network"], row["images"], row["cpu"], row["seconds"], row["threads"], row["load"],
         row["peak_gb"], percent(row["kept_flops"]))
        for row in read("reconstruction_scale.csv")
    ]  # fmt: skip
    head = ("network", "images", "processor s", "wall s", "threads", "load", "peak GB",
            "FLOPs kept")  # fmt: skip
    return table(head, rows)


def _budgets() -> str:
    """Return how much of its budget every method used: the least and the most over all runs."""
    found: dict[str, list[float]] = {}
    for row in read("budgets.csv"):
        found.setdefault(row["method"], []).append(float(row["share_of_budget"]))
    rows = [
        (
            method,
            str(len(shares)),
            f"{min(shares):.3f}",
            f"{mean(shares):.3f}",
            f"{max(shares):.3f}",
        )
        for method, shares in found.items()
    ]
    return table(("method", "runs", "least", "mean", "most"), rows)


def _gates_step() -> str:
    rows = [
        (row["network"], row["method"], f"{1e3 * float(row['seconds_plain']):.0f}",
         f"{1e3 * float(row['seconds_gates']):.0f}", f"{float(row['ratio']):.3f}", row["steps"])
        for row in read("gates_step.csv")
    ]  # fmt: skip
    return table(("network", "method", "ms without", "ms with gates", "ratio", "pairs"), rows)


def _processes() -> str:
    rows: dict[str, dict[str, dict[str, str]]] = {}
    for row in read("processes.csv"):
        rows.setdefault(row["command"], {})[row["processes"]] = row
    body = [
        (
            name,
            *(
                text
                for each in (row["1"], row["2"])
                for text in (percent(each["accuracy"]), percent(each["flops_kept"]), each["loss"])
            ),
        )
        for name, row in rows.items()
        if len(row) == 2
    ]
    head = ("accuracy", "FLOPs kept", "loss")
    return table(("command", *head, *(f"{word}, two" for word in head)), body)


def _defaults() -> str:
    groups: dict[tuple[str, ...], Rows] = {}
    for row in read("defaults.csv"):
        key = (row["checkpoint"], row["signal"], row["aggregate"], row["allocation"])
        groups.setdefault(key, []).append(row)
    rows = [
        (*key, *(percent(str(mean(float(row[kept]) for row in group))) for kept in ("0.7", "0.5")))
        for key, group in groups.items()
        if key[3] != "global" and key[2] != "mean"
    ]
    head = ("checkpoint", "signal", "aggregate", "allocation", "at 0.7", "at 0.5")
    return table(head, rows)


def _repair() -> str:
    cuts: dict[tuple[str, ...], dict[str, Rows]] = {}
    for row in read("repair.csv"):
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


def _unlabelled() -> str:
    head = ("checkpoint", "FLOPs", "trained by", "images", "epochs", "accuracy", "agreement")
    return table(
        (*head, "scored on"),
        [
            (
                row["checkpoint"], row["flops"], row["trained"], row["images"], row["epochs"],
                percent(row["accuracy"]), percent(row["agreement"]), row["scored"],
            )
            for row in read("unlabelled.csv")
        ],
    )  # fmt: skip


def _saliency() -> str:
    head = ("FLOPs", "signal", "FLOPs kept", "R^2 after pruning", "R^2 after distillation")
    return table(
        (*head, "correlation", "divergence"),
        [
            (
                f"{float(row['fewer_flops']):g} times fewer", row["signal"],
                percent(row["kept_flops"]), row["agreement_pruned"], row["agreement"],
                row["correlation"], row["divergence"],
            )
            for row in read("saliency.csv")
        ],
    )  # fmt: skip


def _block_deletion() -> str:
    head = (
        "checkpoint", "FLOPs", "allocation", "blocks deleted", "FLOPs kept", "parameters kept",
        "held out", "before training", "after", "trials", "seconds", "load",
    )  # fmt: skip
    rows = [
        (row["checkpoint"], row["flops"], row["allocation"], row["deleted"] or row["blocks"],
         percent(row["kept_flops"]), percent(row["kept_params"]), percent(row["cut"]),
         percent(row["before"]), percent(row["after"]), row["trials"], row["seconds"], row["load"])
        for row in read("block_deletion.csv")
    ]  # fmt: skip
    return table(head, rows)


def _accuracy(rows: Rows) -> str:
    return percent(str(mean(float(row["accuracy"]) for row in rows))) if rows else ""


def _seconds(rows: Rows, clock: str) -> str:
    known = [float(row[clock]) for row in rows if row[clock]]
    return f"{mean(known):.0f}" if known else ""


def _allocations() -> str:
    """Return one row per rule: accuracy after the cut / after batch norm, and the loss after it.

    The rule with the best mean accuracy stands first.
    """
    rows = read("allocations.csv")
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
            *[f"{percent(row['accuracy'])}, {row['loss']}"] * len(budgets),
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
                f"{percent(cut['accuracy'])} / {percent(norm['accuracy'])}, {norm['loss']}"
                if cut and norm
                else ""
            )
        rule = f"{key[2]} ({key[3]})" if key[3] else key[2]
        table_rows.append((key[0], key[1], rule, *found))
    head = ("checkpoint", "signal", "allocation", *(f"at {budget}" for budget in budgets))
    return table(head, table_rows)


def _weights() -> str:
    """Return accuracy right after zeroing weights, as they are / with batch norm estimated anew."""
    rows = [row for row in read("weights.csv") if not row["training"]]
    cells = [
        (
            row["checkpoint"],
            row["signal"] or "dense",
            row["allocation"],
            percent(row["sparsity"]),
            percent(row["masked"]),
            percent(row["bn"]),
            f"{int(row['bytes']) / 1000:.0f} kB",
        )
        for row in rows
    ]
    head = ("checkpoint", "signal", "allocation", "zero", "masked", "batch norm anew", "file")
    return table(head, cells)


def _weights_trained() -> str:
    rows = [
        (row["checkpoint"], row["allocation"], percent(row["sparsity"]), row["training"],
         percent(row["trained"]), f"{int(row['bytes']) / 1000:.0f} kB")
        for row in read("weights.csv")
        if row["training"]
    ]  # fmt: skip
    return table(("checkpoint", "allocation", "zero", "zeroed", "accuracy", "file"), rows)


def _dead_units() -> str:
    """Return one row per way of removing units: means over the seeds."""
    found: dict[tuple[str, str], Rows] = {}
    for row in read("dead_units.csv"):
        found.setdefault((row["method"], row["propagated"]), []).append(row)

    def average(rows: Rows, name: str) -> float:
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
    found = [row for row in read("oracle.csv") if row["against"] == "size"]
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
    for row in read("alignment.csv"):
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


def _speedup() -> str:
    """Return the speed-up and the realised share at half the FLOPs, batch 1 / 8."""
    found = {(row["network"], row["version"], row["batch"]): row for row in read("speedup.csv")}
    versions = [name for name in dict.fromkeys(key[1] for key in found) if name != "dense"]

    def both(network: str, version: str, field: str) -> str:
        pair = [found.get((network, version, batch)) for batch in ("1", "8")]
        return " / ".join("fails" if row is None else f"{float(row[field]):.2f}" for row in pair)

    rows = [
        (name, both(name, "prunecli", "speedup"), *(both(name, each, "share") for each in versions))
        for name in dict.fromkeys(key[0] for key in found)
    ]
    return table(("network", "speed-up", *versions), rows)


def _networks() -> str:
    rows = read("networks.csv")
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


def _packages() -> str:
    columns = {
        "model": "model", "package": "package", "mode": "mode", "FLOPs kept": "kept_flops",
        "parameters kept": "kept_params", "FLOPs of what stays whole": "whole_flops",
        "verified": "verified", "for": "scope", "limits": "limits", "trains": "trains",
        "outputs": "outputs", "compared in ONNX Runtime at": "compared",
        "largest difference": "error", "pruned, s": "prune_s", "exported, s": "export_s",
    }  # fmt: skip
    rows = read("packages.csv")
    return table(tuple(columns), [[row[field] for field in columns.values()] for row in rows])


KINDS = (
    ("torchvision", "classification"), ("torchvision", "segmentation"),
    ("torchvision", "detection"), ("torchvision", "video"), ("torchvision", "flow"),
    ("timm", "classification"),
)  # fmt: skip


def _zoo() -> str:
    """Return the totals of the zoos, with those of Torch-Pruning on the same models."""
    ours, peer = read("zoo.csv"), read("zoo_torch_pruning.csv")
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
    missed = [row for row in read("zoo.csv") if row["outcome"] != "proven"]
    if not missed:
        return "None ended otherwise."
    return "\n".join(f"- `{row['model']}`: {row['outcome']}, {row['note'][:120]}" for row in missed)


def _zoo_peer() -> str:
    """Return how the models ended that Torch-Pruning was run on."""
    rows = read("zoo_torch_pruning.csv")
    counts = Counter(row["outcome"] for row in rows)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    kept = [float(row["kept_flops"]) for row in rows if row["outcome"] == "runs"]
    span = f"{min(kept):.2f} to {max(kept):.2f}" if kept else "none"
    return f"Torch-Pruning, {len(rows)} models: {told}; FLOPs kept where it runs: {span}."


def _structure() -> str:
    rows = read("structure.csv")
    proven = [row for row in rows if row["outcome"] == "proven"]
    limits = Counter(limit for row in proven for limit in row["limits"].split("; ") if limit)
    spent = [float(row["prove_s"]) for row in proven]
    body = [
        ("networks", str(len(rows))),
        ("proven", str(len(proven))),
        ("in module mode", str(sum(row["mode"] == "module" for row in proven))),
        ("operator by operator", str(sum(row["by_structure"] == "True" for row in proven))),
        ("any batch and image size", str(sum("any image size" in row["scope"] for row in proven))),
        ("with limits", str(sum(bool(row["limits"]) for row in proven))),
        ("CPU seconds of the proof, median", f"{median(spent):.1f}"),
        ("CPU seconds of the proof, most", f"{max(spent):.1f}"),
    ]
    body += [(f"limit: {limit}", str(count)) for limit, count in limits.most_common()]
    return table(("what", "count"), body)


def _proof_time() -> str:
    body = [
        (row["model"], row["before_s"], row["after_s"], row["ratio"],
         row["prove_before_s"], row["prove_after_s"], row["mode"], row["same_verdict"])
        for row in read("proof_time.csv")
    ]  # fmt: skip
    head = ("model", "before, CPU s", "now, CPU s", "ratio", "proof before", "proof now", "mode",
            "same verdict")  # fmt: skip
    return table(head, body)


def _random_networks() -> str:
    rows = read("random_networks.csv")
    spent = [float(row["cpu_s"]) for row in rows]
    proven = [row for row in rows if row["mode"]]
    limits = Counter(limit for row in proven for limit in row["limits"].split("; ") if limit)
    body = [
        ("networks", str(len(rows))),
        *Counter(row["ended"].partition(":")[0] for row in rows).most_common(),
        *((f"in {mode} mode", count) for mode, count in Counter(
            row["mode"] for row in proven).most_common()),
        ("operator by operator", sum(row["by_structure"] == "True" for row in proven)),
        *((f"limit: {limit}", count) for limit, count in limits.most_common()),
        ("CPU seconds of a cut, median", f"{median(spent):.1f}"),
    ]  # fmt: skip
    return table(("what", "count"), [(what, str(count)) for what, count in body])


def _licences() -> str:
    packages: dict[str, list[str]] = {}
    for row in read("licences.csv"):
        packages.setdefault(row["licence"], []).append(row["package"])
    body = [
        (licence, str(len(names)), ", ".join(names))
        for licence, names in sorted(packages.items(), key=lambda item: -len(item[1]))
    ]
    return table(("licence", "packages", "which"), body)


def _coupling() -> str:
    rows = [
        (row["model"], f"{float(row['parameters']) / 1e6:.0f} M", row["nodes"],
         row["trace_s"], row["couple_s"], row["cost_s"], row["allocate_s"], row["peak_gib"])
        for row in read("coupling_scale.csv")
    ]  # fmt: skip
    head = ("network", "parameters", "graph nodes", "trace, s", "coupling, s", "costs, s",
            "allocation, s", "peak GiB")  # fmt: skip
    return table(head, rows)


def _speed() -> str:
    rows = read("speed.csv")
    names = ("command", "seconds", "peak_gib", "trace_to_cut_s", "couple_s", "prove_s")
    head = ("command", "seconds", "peak GiB", "trace to cut, s", "coupling, s", "proof, s")
    return table(head, [tuple(row[name] for name in names) for row in rows])


def _precision() -> str:
    names = ("what", "checkpoint", "seed", "images", "fp32", "bf16", "bf16_over_fp32")
    head = ("what", "checkpoint", "seed", "images", "fp32", "bf16", "bf16 against fp32")
    return table(head, [tuple(row[name] for name in names) for row in read("precision.csv")])


def _dynamic() -> str:
    """Return time and memory of a step, dense against dynamic execution, and their ratio."""
    head = ("network", "FLOPs", "step, ms", "choosing and moving, ms", "rewards, ms",
            "step after the search, ms", "saved for backward, MB", "peak, MB",
            "peak with freed memory kept, MB")  # fmt: skip

    def pair(row: dict[str, str], name: str, unit: str) -> str:
        dense, search = (float(row[f"{name}{kind}_{unit}"]) for kind in ("dense", "search"))
        return f"{dense:.0f} to {search:.0f} ({search / dense:.2f})"

    rows = [
        (row["network"], percent(row["kept_flops"]),
         f"{pair(row, '', 'ms').partition(' (')[0]} ({float(row['ratio']):.2f})",
         f"{float(row['choose_and_move_ms']):.0f}", f"{float(row['reward_ms']):.0f}",
         f"{float(row['frozen_ms']):.0f}",
         *(pair(row, name, "mb") for name in ("saved_", "peak_", "resident_")))
        for row in read("dynamic.csv")
    ]  # fmt: skip
    return table(head, rows)


def _bridgeout() -> str:
    """Return the mean accuracy over seeds for each fraction of the filters that are zeroed."""
    found: dict[tuple[str, ...], Rows] = {}
    names = ("regularizer", "p", "q", "target_fraction", "weight_decay", "epochs", "side")
    for row in read("bridgeout.csv"):
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    fractions = [f"{tenth / 10:g}" for tenth in range(8)]
    body = [
        (*setting, str(len(rows)), *(
            percent(str(mean(float(row[fraction]) for row in rows))) for fraction in fractions
        ))
        for setting, rows in found.items()
    ]  # fmt: skip
    head = ("regularizer", "p", "q", "target", "weight decay", "epochs", "pixels", "seeds",
            *(f"{100 * float(fraction):.0f} %" for fraction in fractions))  # fmt: skip
    return table(head, body)


def _latency() -> str:
    rows = [
        (row["network"], row["budget"], percent(row["kept_flops"]), percent(row["predicted"]),
         percent(row["real"]), f"{1 / float(row['real']):.2f}", row["dense_ms"], row["slim_ms"])
        for row in read("latency.csv")
    ]  # fmt: skip
    head = ("network", "budget", "FLOPs kept", "time kept, predicted", "real", "speed-up",
            "dense ms", "slim ms")  # fmt: skip
    return table(head, rows)


def _int8() -> str:
    """Return dense and pruned models in float and INT8: size, time, accuracy, agreement."""
    rows = [
        (row["checkpoint"], percent(row["kept"]), row["precision"],
         f"{int(row['bytes']) / 1e3:,.0f}", row["ms_1"], row["ratio_1"], row["ms_8"],
         row["ratio_8"], percent(row["accuracy"]), percent(row["agreement"]), row["images"],
         f"{int(row['layers']) - int(row['in_float'])} of {row['layers']}"
         if int(row["layers"]) else "", row["calibration"])
        for row in read("int8.csv")
    ]  # fmt: skip
    head = ("checkpoint", "FLOPs kept", "precision", "kB", "ms, batch 1", "of dense float",
            "ms, batch 8", "of dense float", "accuracy", "same class as dense float", "images",
            "layers in INT8", "calibration")  # fmt: skip
    return table(head, rows)


def _listing() -> str:
    """Return what it takes to find out about very many files."""
    rows = [
        (row["what"], f"{int(row['files']):,}", row["seconds"], row["peak_mb"])
        for row in read("listing.csv")
    ]
    return table(("what", "files", "seconds", "MB more"), rows)


def _strangers() -> str:
    """Return how files are refused that ask for more than they hold."""
    rows = [
        (row["file"], f"{int(row['bytes']) / 1000:,.0f}", f"`{row['refused_with']}`",
         row["seconds"], row["more_mb"])
        for row in read("strangers.csv")
    ]  # fmt: skip
    head = ("file", "kB on disk", "refused with", "seconds", "MB more")
    return table(head, rows)


def _mutations() -> str:
    """Return what came of damaged files, by format."""
    names = ("format", "mutations", "read", "refused", "faults", "slowest_s")
    rows = [tuple(row[name] for name in names) for row in read("mutations.csv")]
    counted = [str(sum(int(row[at]) for row in rows)) for at in range(1, 5)] if rows else []
    slowest = [max((row[5] for row in rows), key=float)] if rows else []
    total = [("**all**", *counted, *slowest)] if rows else []
    head = ("file", "mutations", "read", "refused", "faults", "slowest, s")
    return table(head, [*rows, *total])


def _interruptions() -> str:
    """Return what verbs left that were stopped or lacked something, by what happened to them."""
    found: dict[str, Rows] = {}
    for row in read("interruptions.csv"):
        found.setdefault(row["fault"], []).append(row)
    names = ("moments", "stopped", "finished", "broken", "faults")
    rows = [
        (fault, str(len(own)), *(str(sum(int(row[name]) for row in own)) for name in names))
        for fault, own in found.items()
    ]
    head = ("what happens", "verbs", "runs", "ended early", "finished", "broken files", "faults")
    return table(head, rows)


def _startup() -> str:
    """Return processor seconds before and after, and starting over the bare import of torch."""
    rows = []
    for row in read("startup.csv"):
        torch, before, after, work = (
            float(row[name]) for name in ("torch", "before", "after", "work")
        )
        ratios = (f"{(after - work) / torch:.2f}", f"{before / after:.1f}x")
        rows.append(
            (row["case"], *(row[name] for name in ("torch", "before", "after", "work")), *ratios)
        )
    head = ("what", "torch, s", "before, s", "after, s", "of it work, s", "starting / torch",
            "faster")  # fmt: skip
    return table(head, rows)


def _expected_error() -> str:
    """Return, per way of measuring, the paper's form and the one that is taken."""
    rows = []
    for row in read("expected_error_fits.csv"):
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
    lines: dict[str, Rows] = {}
    for row in read("kept_flops.csv"):
        lines.setdefault(row["point"], []).append(row)
    least = {row["point"]: row["least"] for row in read("kept_flops_least.csv")}
    keeps = [row["asked"] for row in next(iter(lines.values()), [])]
    rows = [
        (name, f"{float(found[0]['csg']):.2f}", percent(found[0]["error"]),
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
        for row in read("kept_flops_relation.csv")
    ]  # fmt: skip
    head = ("data sets", "number", "foretold by", "Spearman", "p", "one left out", "by the mean",
            "all of its kind left out", "by the mean")  # fmt: skip
    return table(head, rows)


def headlines() -> str:
    """Return the figures that stand for the rest, each with its script."""
    found = (
        _headline_zoo,
        _headline_speed,
        _headline_int8,
        _headline_recovery,
        _headline_repair,
        _headline_csg,
    )
    return table(("what", "measured", "script"), [headline() for headline in found])


def _headline_zoo() -> tuple[str, ...]:
    rows, peer = read("zoo.csv"), read("zoo_torch_pruning.csv")
    proven = sum(row["outcome"] == "proven" for row in rows)
    runs = sum(row["outcome"] == "runs" for row in peer)
    return (
        "models of torchvision and timm pruned to half of their FLOPs and verified, without a hint",
        f"{proven} of {len(rows)} (Torch-Pruning: {runs} of {len(peer)} still run)",
        _script("zoo"),
    )


def _headline_speed() -> tuple[str, ...]:
    ours = [row for row in read("speedup.csv") if row["version"] == "prunecli"]
    found = [
        mean(float(row["speedup"]) for row in ours if row["batch"] == batch) for batch in ("1", "8")
    ]
    networks = len({row["network"] for row in ours})
    return (
        f"speed-up at half the FLOPs, mean of {networks} networks, ONNX Runtime on one CPU thread",
        f"{found[0]:.2f} times (batch 8: {found[1]:.2f})",
        _script("speedup"),
    )


def _headline_int8() -> tuple[str, ...]:
    rows = [row for row in read("int8.csv") if row["checkpoint"] == "resnet56-jpeg.pt"]
    plain, own = (
        next(row for row in rows if row["model"] == "dense" and row["precision"] == name)
        for name in ("float", "INT8")
    )
    faster = float(plain["ms_8"]) / float(own["ms_8"])
    accuracy = f"{percent(own['accuracy'])} accuracy (float: {percent(plain['accuracy'])})"
    return (
        "ResNet-56, CIFAR-10, in INT8 beside float, ONNX Runtime on one CPU thread, batch 8",
        f"{faster:.2f} times as fast, {accuracy}",
        _script("int8"),
    )


def _headline_recovery() -> tuple[str, ...]:
    rows = {row["row"]: row for row in read("recovery.csv") if row["seed"] == "0"}
    dense, pruned = rows["dense"], rows["l1 uniform, teacher"]
    kept = percent(pruned["kept_flops"])
    return (
        f"accuracy of a ResNet-20, CIFAR-10, {kept} of the FLOPs, 3 epochs with a teacher",
        f"{percent(pruned['after'])} (original: {percent(dense['after'])})",
        _script("recovery"),
    )


def _headline_repair() -> tuple[str, ...]:
    accuracy = {
        row["step"]: percent(row["accuracy"])
        for row in read("repair.csv")
        if (row["signal"], row["kept"]) == ("reconstruction", "0.7")
    }
    return (
        "accuracy of a ResNet-56, CIFAR-10, 70 % of the FLOPs, repaired without any training",
        f"{accuracy['lstsq']} (original: {accuracy['dense']})",
        _script("repair"),
    )


def _headline_csg() -> tuple[str, ...]:
    (row,) = [row for row in read("csg_reference.csv") if row["data"].startswith("CIFAR-10")]
    return (
        "complexity (CSG) of CIFAR-10 beside the reference implementation",
        f"difference {row['largest_difference']}, {row['faster_cpu']} times as fast",
        _script("csg_reference"),
    )


def _script(name: str) -> str:
    return f"[{name}.py](tests/benchmarks/{name}.py)"
