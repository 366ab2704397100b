"""What `info` says about a file."""

from collections.abc import Iterator

from prunecli.budget import budget_text, format_bytes, format_quantity
from prunecli.cost.kinds import cost_label
from prunecli.report import (
    ArchitectureInfo,
    InfoReport,
    InputInfo,
    OnnxInfo,
    RunStep,
    ValueInfo,
    WeightSet,
)
from prunecli.wording import counted, one_line, percent, some

from .table_parts import Parts, fact_rows

OPERATORS = 6
"""Kinds of operators that are named in the short form."""

CLASSES = 5
"""Classes that are named in the short form."""


def info_parts(report: InfoReport, rows: int | None) -> Parts:
    """Return a fact a line; `rows` is None where everything is to be shown."""
    facts = {
        "file": f"{report.file}, {format_bytes(report.file_bytes)}",
        "what it is": _what(report),
        **_architecture(report.architecture),
        **_classes(report, rows),
        **({} if report.input is None else _input(report.input)),
        "cost": _costs(report),
        **dict(_sets(report.weights)),
    }
    if report.sparsity is not None:
        facts["zeros"] = f"{percent(report.sparsity)} of the weights, stored without them"
    if report.claimed:
        claims = (f"{name} {value:g}" for name, value in report.claimed.items())
        facts["the file claims"] = ", ".join(claims)
    if report.onnx is not None:
        facts |= _onnx(report.onnx, rows)
    facts |= dict(_history(report.history))
    if report.versions:
        facts["made with"] = ", ".join(f"{name} {text}" for name, text in report.versions.items())
    facts["SHA-256"] = report.sha256
    return [fact_rows({name: one_line(text) for name, text in facts.items()})]


def _what(report: InfoReport) -> str:
    known = report.architecture
    cut = f", pruned in {known.pruned} mode" if known is not None and known.pruned else ""
    if known is not None and known.pickled:
        return f"a model of the class {known.pickled}, pickled as a whole ({report.format})"
    kinds = {"artefact": f"an artefact of prunecli{cut}", "state dict": "a state dict"}
    if report.kind == report.format:
        return f"an {report.kind} file"
    return f"{kinds.get(report.kind, report.kind)} ({report.format})"


def _architecture(known: ArchitectureInfo | None) -> dict[str, str]:
    if known is None:
        return {}
    arguments = ", ".join(f"{name}={value}" for name, value in known.arguments.items())
    named = "not known by its name" if known.name is None else known.name
    facts = {"architecture": f"{named}({arguments})" if arguments else named}
    if known.problem:
        facts["why"] = known.problem
    if known.assumed:
        facts["assumed"] = "; ".join(known.assumed)
    if known.loads:
        facts["to use it"] = known.loads
    return facts


def _classes(report: InfoReport, rows: int | None) -> dict[str, str]:
    if report.class_count is None:
        return {}
    if report.classes is None:
        return {"classes": f"{report.class_count}, without names"}
    shown = len(report.classes) if rows is None else CLASSES
    return {"classes": f"{report.class_count}: {some(report.classes, shown)}"}


def _input(found: InputInfo) -> dict[str, str]:
    if found.arguments:
        return {"input": ", ".join(found.arguments)}
    mean, std = (", ".join(f"{value:g}" for value in part) for part in (found.mean, found.std))
    return {
        "input": f"{counted(found.channels, 'channel')}, {found.height} x {found.width} pixels",
        "normalisation": f"(pixels / 255 - mean) / std, mean {mean}, std {std}"
        if found.mean
        else "not known: --mean and --std",
    }


def _costs(report: InfoReport) -> str:
    told = [
        f"{format_quantity(amount)} {cost_label(kind)}"
        for kind, amount in report.cost.items()
        if amount is not None
    ]
    if report.cost.get("flops") is None and report.onnx is None:
        told.append("FLOPs: not told by the file (--build counts them)")
    return ", ".join(told)


def _sets(weights: tuple[WeightSet, ...]) -> Iterator[tuple[str, str]]:
    for one in weights:
        name = "weights" if one.role == "weights" else f"also holds {one.place!r}"
        place = f", under {one.place!r}" if one.place and one.role == "weights" else ""
        what = " (optimizer)" if one.role == "optimizer" else ""
        kinds = ", ".join(
            f"{kind} x {format_quantity(count)}" if len(one.dtypes) > 1 else kind
            for kind, count in one.dtypes.items()
        )
        yield name, f"{counted(one.tensors, 'tensor')}{place}{what}: {kinds}"


def _onnx(found: OnnxInfo, rows: int | None) -> dict[str, str]:
    names = list(found.operators)
    shown = names if rows is None else names[:OPERATORS]
    kinds = ", ".join(f"{found.operators[name]} {name}" for name in shown)
    left = len(names) - len(shown)
    facts = {
        "opset": ", ".join(
            f"{version} ({domain})" if domain else str(version)
            for domain, version in found.opsets.items()
        )
        + f"; format version {found.ir_version}",
        "precision": "" if found.precision is None else found.precision.statement,
        "made by": found.producer or "not told",
        "inputs": "; ".join(map(_value, found.inputs)),
        "outputs": "; ".join(map(_value, found.outputs)),
        "operators": f"{kinds} and {counted(left, 'more kind')}" if left else kinds,
    }
    if found.not_counted:
        facts["not counted as FLOPs"] = ", ".join(found.not_counted)
    if found.metadata:
        facts["metadata"] = ", ".join(f"{key}={text}" for key, text in found.metadata.items())
    return facts


def _value(value: ValueInfo) -> str:
    return f"{value.name}: {value.dtype} [{', '.join(map(str, value.shape))}]"


def _history(history: tuple[RunStep, ...]) -> Iterator[tuple[str, str]]:
    for at, step in enumerate(history, start=1):
        parts = [step.command or step.verb]
        if step.budget:
            parts.append(f"budget: {budget_text(step.budget)}")
        if step.chosen:
            parts.append(f"chosen by {step.chosen}")
        if step.cost is not None:
            kept = step.cost.kept
            parts.append(f"{percent(kept['flops'])} of the FLOPs kept")
        if step.sparsity is not None:
            parts.append(f"{percent(step.sparsity)} of the weights zero")
        if step.verified is not None:
            parts.append(f"verified: {step.verified.statement}")
        if step.accuracy is not None:
            change = step.accuracy
            parts.append(
                f"{change.measure} {percent(change.before)} -> {percent(change.after)} "
                f"on {change.split}"
            )
        yield f"step {at}", "; ".join(parts)
