"""The command that people usually run after a verb, with the files of this run in it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.options import LoadOptions

if TYPE_CHECKING:
    from prunecli.report import ExportReport, FinetuneReport, ModelAnalysis, PruneReport


IMAGES = "images/"
"""What stands for a folder of images where none was named."""


MODEL = "model.pt"
"""What stands for the original model where it was not named."""


def after_analysis(analysis: "ModelAnalysis | None", *, model: Path | None) -> str | None:
    """Return the pruning to half of the FLOPs, or to what can be reached."""
    if analysis is None or model is None:
        return None
    lowest = analysis.lowest_flops
    if lowest >= 1:
        return None
    reachable = 0.5 if lowest < 0.5 else round((1 + lowest) / 2, 2)
    return _command("prune", str(model), "--flops", f"{reachable:g}")


def after_pruning(
    report: "PruneReport", *, model: Path, data: str | None, load: LoadOptions
) -> str | None:
    """Return the fine-tuning of what was written; the export where training was part of it.

    A teacher that can only be read with further words is found by the history of the output.
    """
    if report.output is None:
        return None
    chosen = _chosen(load)
    if report.iterative is not None or report.learning is not None:
        return _export(report.output, *chosen, against=model)
    words = () if chosen else ("--teacher", str(model))
    loss = () if report.classifier else ("--loss", "outputs")
    return _command("finetune", str(report.output), "--data", data or IMAGES, *words, *loss)


def after_training(report: "FinetuneReport") -> str:
    """Return the export of what was written, beside the model that taught it."""
    taught_by = report.taught_by
    return _export(report.output, against=None if taught_by is None else taught_by.file)


def after_export(report: "ExportReport", *, against: Path | None) -> str:
    """Return the evaluation of the exported file: without classes, beside the original model."""
    outputs = report.parity.outputs
    classes = not outputs or len(outputs[0].shape) == 2
    words = () if classes else ("--against", str(against or MODEL))
    return _command("evaluate", str(report.output), "--data", IMAGES, *words)


def _chosen(load: LoadOptions) -> list[str]:
    """Return the words that say which weights of a file are meant."""
    words = [word for text in load.ignore for word in ("--ignore", text)]
    words += [word for pair in load.renamed.items() for word in ("--map", "=".join(pair))]
    words += ["--prefix", load.prefix] if load.prefix else []
    words += ["--head-activation", load.head_activation] if load.head_activation else []
    return [*words, "--weights", load.weights] if load.weights else words


def _export(output: Path, *chosen: str, against: Path | None) -> str:
    words = () if against is None else ("--against", str(against), *chosen)
    return _command("export", str(output), "--onnx", *words)


def _command(*words: str) -> str:
    return shlex.join(("prunecli", *words))
