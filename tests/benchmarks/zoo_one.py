"""Cut, prove and control one model of a zoo: `python zoo_one.py SOURCE NAME [--no-export]`.

A row is written as JSON after each step, so that a later one that never ends loses nothing.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import traceback
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from zoo_models import CLASSIFICATION, DETECTION, ENTRIES, Entry, noise_inputs, raw_outputs

import prunecli
from prunecli.architectures.reference import InputSpec
from prunecli.cutting.surgery import cut_tensor
from prunecli.errors import PruneError
from prunecli.exporting import ONNX, write_proven
from prunecli.graph.tracing.record import tensors_in
from prunecli.network.described import frozen_reports
from prunecli.network.traced import read_network
from prunecli.proof.error import relative_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from prunecli.progress import Step
    from prunecli.pruning.road import PruneResult
    from prunecli.report import FrozenReport

Row = dict[str, object]

LOWEST, HIGHEST = 0.48, 0.50
"""The fraction of FLOPs that a cut to one half may keep."""

CONTROL = 1e-4
"""A displaced consumer has to show at least like this: the proof allows 1e-8."""

STAGES = ("trace", "couple", "cost", "score", "allocate", "cut", "prove")


def main() -> int:
    """Run the model that the command line names."""
    source, name, *flags = sys.argv[1:]
    entry = next(entry for entry in ENTRIES[source]() if entry.name == name)
    row: Row = {}
    try:
        model = entry.build()
        before = identities(model)
        result = cut(entry, model, row)
        if identities(model) != before:
            row["outcome"] = f"{row['outcome']}, caller's model changed"
        say(row)
        if result is None:
            return 0
        control(entry, model, result, row)
        say(row)
        if entry.kind == CLASSIFICATION and "--no-export" not in flags:
            row["onnx"] = onnx(entry, result.model)
    except Exception as error:
        row["outcome"] = f"{type(error).__name__} in the benchmark"
        row["note"] = f"{error} ({last_lines(error)})"[:400]
    say(row)
    return 0


def say(row: Row) -> None:
    """Write the row so far."""
    print(json.dumps(row), flush=True)


def identities(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Return what would tell a change of a tensor: which one it is, and how often written to."""
    tensors = model.state_dict(keep_vars=True)
    return {
        name: (id(value), value.dtype, tuple(value.shape), value._version)
        for name, value in tensors.items()
    }


# --- cut -----------------------------------------------------------------------------------------


def cut(entry: Entry, model: nn.Module, row: Row) -> PruneResult | None:
    """Cut to half of the FLOPs with no option more; fill in the row."""
    example = entry.example()
    watch = Watch()
    try:
        result = prunecli.prune(model, example, flops=0.5, signal="l2", progress=watch)
    except PruneError as error:
        row |= watch.row()
        row["outcome"] = "infeasible" if error.code == "INFEASIBLE_BUDGET" else error.code
        row["note"] = one_line(error)
        if error.code not in ("NOT_TRACEABLE", "FORWARD_FAILED"):
            say(row)
            row |= why(model, example)
        return None
    except Exception as error:
        row |= watch.row()
        row["outcome"] = f"{type(error).__name__}"
        row["note"] = f"{str(error).strip()[:250]} ({last_lines(error)})"
        return None
    report = result.report
    kept = report.cost.kept
    within = LOWEST <= kept["flops"] <= HIGHEST
    row |= {
        **watch.row(),
        "outcome": "proven" if within else "proven, off budget",
        "mode": report.mode,
        "kept_flops": f"{kept['flops']:.4f}",
        "kept_params": f"{kept['params']:.4f}",
        "method": report.verified.method,
        "max_rel_error": f"{report.verified.max_rel_error:.1e}",
        **frozen(report.frozen),
        **{f"{stage}_s": report.seconds.get(stage, 0.0) for stage in STAGES},
        "note": "; ".join(report.warnings),
    }
    return result


def why(model: nn.Module, example: Any) -> Row:
    """Return what holds a network that was not cut."""
    try:
        network = read_network(model, example)
        unknown = ", ".join(network.coupling.unknown)
        return {
            **frozen(frozen_reports(network)),
            **({"frozen_unknown": unknown} if unknown else {}),
        }
    except Exception as error:
        return {"frozen_why": f"cannot be told: {error!r}"[:200]}


def frozen(reports: Iterable[FrozenReport]) -> Row:
    """Return the count, and the three reasons that hold most of the FLOPs."""
    reports = [report for report in reports if report.reason != "output of the network"]
    shares: dict[str, float] = defaultdict(float)
    first: dict[str, FrozenReport] = {}
    for report in reports:
        shares[report.reason] += report.flops_share
        known = first.setdefault(report.reason, report)
        if report.flops_share > known.flops_share:
            first[report.reason] = report
    said = [
        f"{share:.1%} {reason} ({first[reason].name}{at(first[reason].where)})"
        for reason, share in sorted(shares.items(), key=lambda item: -item[1])[:3]
    ]
    return {"frozen": len(reports), "frozen_why": "; ".join(said)}


def at(where: str | None) -> str:
    """Return file:line without the folders."""
    return "" if where is None else f" {Path(where).name}"


def one_line(error: PruneError) -> str:
    """Return message, place and cause in one line."""
    cause = "" if error.__cause__ is None else f" <- {str(error.__cause__).strip()[:250]}"
    origin = "" if error.__cause__ is None else f" ({last_lines(error.__cause__)})"
    return " ".join(f"{error.message} ({error.where}){cause}{origin}".split())[:700]


def last_lines(error: BaseException, count: int = 3) -> str:
    """Return the innermost lines of a traceback, in short."""
    frames = traceback.extract_tb(error.__traceback__)[-count:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))


class Watch:
    """Follows the stages of a cut and the peak memory before its proof."""

    def __init__(self) -> None:
        self.stage = "start"
        reset_peak()
        self.base = memory("VmRSS")
        self.peak: float | None = None

    def __call__(self, step: Step) -> None:
        if step.stage == "prove" and self.peak is None:
            self.peak = memory("VmHWM")
        self.stage = step.stage

    def row(self) -> Row:
        """Return the GiB above the model: at most 2 are allowed before the proof."""
        peak = memory("VmHWM") if self.peak is None else self.peak
        return {
            "peak_gib": f"{peak - self.base:.2f}",
            "prove_peak_gib": f"{memory('VmHWM') - self.base:.2f}",
            "last_stage": self.stage,
        }


def reset_peak() -> None:
    """Let the kernel count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(kind: str) -> float:
    """Return GiB of this process: `VmRSS` now, or `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 2**20


# --- control -------------------------------------------------------------------------------------


def control(entry: Entry, model: nn.Module, result: PruneResult, row: Row) -> None:
    """Displace what one consumer reads: the error has to show, or the proof was empty."""
    slim = result.model
    displaced = next(displacements(model, result), None)
    if displaced is None:
        row["outcome"] += ", no control"
        return
    name, weight = displaced
    wrong = copy.deepcopy(slim)
    with torch.no_grad():
        wrong.get_parameter(name).copy_(weight)
    outputs = run_all(entry, [model, slim, wrong])
    error = relative_error(outputs[2], outputs[1])
    difference = relative_error(outputs[0], outputs[1])
    row["control_error"], row["dense_difference"] = f"{error:.1e}", f"{difference:.1e}"
    row["control_at"] = name
    # Other boxes are other shapes: infinitely far, and a good control. NaN would be none.
    if not min(error, difference) > CONTROL or not all(map(finite, outputs)):
        row["outcome"] += ", weak control"


def finite(output: Any) -> bool:
    """Tell whether every number of an output is finite."""
    return all(bool(value.isfinite().all()) for value in tensors_in(output))


def displacements(model: nn.Module, result: PruneResult) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield consumers with their inputs displaced by one, the middle one first."""
    dense = dict(model.named_parameters())
    slim = dict(result.model.named_parameters())
    slices = result.plan.slices
    names = [
        name
        for name, dims in slices.items()
        if 1 in dims and name in dense and name in slim and name.endswith("weight")
    ]
    middle = len(names) // 2
    for name in names[middle:] + names[:middle]:
        dims = slices[name]
        right = cut_tensor(dense[name], dims)
        if dense[name].dim() < 2 or slim[name].shape != right.shape:
            continue
        size = dense[name].shape[1]
        moved = tuple((index + 1) % size for index in dims[1])
        if bool((slim[name] == right).all()) and set(moved) != set(dims[1]):
            yield name, cut_tensor(dense[name], {**dims, 1: moved})


def run_all(entry: Entry, models: list[nn.Module]) -> list[Any]:
    """Run models in float64 on two inputs, smaller ones where the first of them takes these."""
    read = raw_outputs if entry.kind == DETECTION else None
    failure: Exception | None = None
    for inputs in noise_inputs(entry.example(), batch=2):
        wide = [value.double() for value in inputs]
        try:
            return [run(model, wide, read) for model in models]
        except Exception as error:
            failure = error
    for inputs in noise_inputs(entry.example(), batch=2):
        try:
            return [run(model, inputs, read) for model in models]
        except Exception as error:
            failure = error
    raise RuntimeError(f"control: {failure}") from failure


def run(model: nn.Module, inputs: list[torch.Tensor], read: Any) -> Any:
    """Return the output of a model in evaluation mode; its type goes back to what it was."""
    kind = next(value.dtype for value in model.parameters() if value.is_floating_point())
    model.eval().to(inputs[0].dtype)
    try:
        with torch.no_grad():
            return model(*inputs) if read is None else read(model, inputs)
    finally:
        model.to(kind)


# --- export --------------------------------------------------------------------------------------


def onnx(entry: Entry, slim: nn.Module) -> str:
    """Export as the library does; return the parity, or what went wrong."""
    spec = InputSpec(*entry.shape[1:], mean=(0.5,) * 3, std=(0.5,) * 3)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, parity = write_proven(ONNX, slim, Path(folder, "slim.onnx"), input=spec, inputs=3)
        except PruneError as error:
            return f"{error.code}: {one_line(error)}"[:300]
        except Exception as error:
            return f"{type(error).__name__}: {error} ({last_lines(error)})"[:300]
    return f"{parity.max_rel_error:.1e}"


if __name__ == "__main__":
    sys.exit(main())
