"""What a run of training gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunecli.training.devices import precision_of
from prunecli.training.hits import record_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from accelerate import Accelerator

    from prunecli.learnability import Record
    from prunecli.plan import PruningPlan
    from prunecli.report import EpochReport, Evaluation, SamplingReport
    from prunecli.training.masked_weights import MaskedWeights
    from prunecli.training.session import Session
    from prunecli.training.task import Task


@dataclass(frozen=True)
class FinetuneResult:
    """A trained network: a copy with the weights of its best epoch, on the CPU, in eval mode.

    Epoch 0 is the network before training: no epoch was better.
    Where weights were held at zero, `masks` say which are kept. `precision` is that of the passes,
    `plan` what a method removed, if it says so, `steps_per_epoch` the updates of an epoch. `task`
    is what was trained for; with it other images can be scored.
    """

    model: nn.Module
    epochs: tuple[EpochReport, ...]
    best_epoch: int
    held_out_before: Evaluation
    held_out_after: Evaluation
    log: Path | None
    warnings: tuple[str, ...]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    record: Record | None = None
    sampling: SamplingReport | None = None
    precision: str = "fp32"
    threads: int | None = None
    plan: PruningPlan | None = None
    steps_per_epoch: int = 0
    stopped_early: bool = False
    task: Task | None = None
    augmentation: str = ""


def result_of(session: Session, warnings: list[str], zeros: MaskedWeights | None) -> FinetuneResult:
    """Return what a run that has ended gives back, with `warnings` and those of its end."""
    best, before, sampling = session.best, session.before, session.recipe.sampling
    assert best is not None
    assert before is not None
    if best.epoch == 0:
        most = max(epoch.accuracy for epoch in session.reports)
        warnings.append(
            f"no epoch was better on the held-out images than the model before training "
            f"({before.accuracy:.4f}, the best epoch {most:.4f}): its weights are kept (train "
            "longer, or with a lower --lr)"
        )
    warnings.extend(note for note in session.recipe.images.found() if note not in warnings)
    warnings.extend(() if sampling is None else sampling.warnings)
    plan = session.finish()
    model = session.recipe.accelerator.unwrap_model(
        session.run.model, keep_fp32_wrapper=False, keep_torch_compile=False
    )
    model = model.to("cpu").to(memory_format=torch.contiguous_format).eval()
    return FinetuneResult(
        model=model,
        epochs=session.reports,
        best_epoch=best.epoch,
        held_out_before=before,
        held_out_after=best.evaluation,
        log=session.log,
        warnings=tuple(warnings),
        masks={} if zeros is None else {name: mask.cpu() for name, mask in zeros.masks.items()},
        precision=precision_of(session.recipe.accelerator),
        threads=_threads(session.recipe.accelerator),
        plan=plan,
        stopped_early=session.is_spent,
        augmentation=session.recipe.augmentation.text,
        steps_per_epoch=session.recipe.steps_per_epoch,
        task=session.recipe.task,
        record=_record(session),
        sampling=None if sampling is None else sampling.report,
    )


def _record(session: Session) -> Record | None:
    if not session.hits:
        return None
    options = session.recipe.options
    facts = {"seed": options.seed, "epochs": len(session.hits)}
    return record_of(
        session.recipe.images, session.hits, facts, scored=options.record_learnability_mode
    )


def _threads(accelerator: Accelerator) -> int | None:
    """Return the threads that trained on a processor: sums over them round by their number."""
    return torch.get_num_threads() if accelerator.device.type == "cpu" else None
