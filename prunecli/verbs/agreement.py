"""How far models of any kind agree with one of them, output by output, on the same images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.data import load_split, plan_batches
from prunecli.data.decode import preparation
from prunecli.errors import InputError
from prunecli.evaluation.agreement import Agreements, paired_names
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.output_kinds import SAMPLE, OutputKind, kinds_of
from prunecli.progress import Step
from prunecli.report import AGREEMENT, Agreement, Evaluation, mean_agreement
from prunecli.verbs.entrants import Entrant, answers_of, enter, prepared
from prunecli.verbs.warnings import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import DataSource, ImageSet
    from prunecli.options import LoadOptions
    from prunecli.processes import Processes
    from prunecli.progress import Progress

    Outputs = Mapping[str, NDArray[Any]]


@dataclass
class Following:
    """How far one model follows another, gathered batch by batch; `kinds` are the other's outputs.

    What only one of both returns, or in another shape, is left out, but for the main output.
    """

    kinds: tuple[OutputKind, ...]
    found: Agreements | None = None
    pairs: Mapping[str, str] = field(default_factory=dict)

    def add(self, own: Outputs, reference: Outputs) -> None:
        """Take in the outputs of both for the same images; those of the main output are alike."""
        if self.found is None:
            self.pairs = _alike(own, reference)
            self.found = Agreements([one for one in self.kinds if one.name in self.pairs])
        self.found.add(
            {name: torch.from_numpy(own[mine]) for name, mine in self.pairs.items()},
            {name: torch.from_numpy(reference[name]) for name in self.pairs},
        )

    def report(self) -> Agreement | None:
        """Return the agreement; None where nothing was compared."""
        if self.found is None or not self.found.kinds:
            return None
        main, *others = self.found.outputs()
        return Agreement(
            main.same_class, main.max_rel_error, main.median_rel_error, (main, *others)
        )


def _alike(own: Outputs, reference: Outputs) -> dict[str, str]:
    """Return the outputs of both that can be compared, the main one first, by the other's name."""
    pairs = {next(iter(reference)): next(iter(own))}
    for name, value in reference.items():
        if name not in pairs and name in own and own[name].shape == value.shape:
            pairs[name] = name
    return {
        name: mine
        for name, mine in pairs.items()
        if np.issubdtype(reference[name].dtype, np.floating)
    }


def reference_kinds(
    reference: Entrant, run: Callable[[Tensor], Outputs], images: ImageSet
) -> tuple[OutputKind, ...]:
    """Return the kinds of a model's outputs, by a few images evenly spread over all."""
    positions = torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().long()

    def chunks() -> Iterator[tuple[int, dict[str, Tensor]]]:
        for pixels, _ in images.gather(torch.split(positions, 8)):
            yield len(pixels), _tensors(run(pixels))

    return kinds_of(chunks(), model=reference.model, classes=_count(reference))


def kinds_of_batch(reference: Entrant, outputs: Outputs, images: int) -> tuple[OutputKind, ...]:
    """Return the kinds of a model's outputs, by those for one batch."""
    chunks = [(images, _tensors(outputs))]
    return kinds_of(chunks, model=reference.model, classes=_count(reference))


def _count(entrant: Entrant) -> int | None:
    return None if entrant.classes is None else len(entrant.classes)


def _tensors(outputs: Outputs) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(value)
        for name, value in outputs.items()
        if np.issubdtype(value.dtype, np.floating) and value.ndim
    }


def agreement_with(
    model: Path,
    reference: Path,
    source: DataSource,
    *,
    split: str,
    batch_size: int,
    limit: int | None,
    load: LoadOptions | None,
    processes: Processes,
    progress: Progress,
) -> Evaluation:
    """Return how far a model agrees with another one on images; no label is looked at.

    Several `processes` share the images. Raises `InputError`: `OTHER_OUTPUTS` where the outputs of
    both cannot be compared, `NO_INPUT_SPEC`, `NO_IMAGES`.
    """
    from prunecli.options.finetune import FinetuneOptions
    from prunecli.training.output_losses import LOSSES

    first, own = enter((reference, model), load, counted=False)
    sets = image_sets((first, own), source, split, limit=limit, progress=progress)
    (its, mine), size = (sets[_spec(one)] for one in (first, own)), len(sets[_spec(own)])
    check_any(size, split)
    run = {one.name: answers_of(one) for one in (first, own)}

    def answers(one: Entrant, pixels: Tensor) -> Outputs:
        return run[one.name]((prepared(one, pixels),))

    kinds = reference_kinds(first, lambda pixels: answers(first, pixels), its)
    temperature = FinetuneOptions().temperature
    pairs: dict[str, str] = {}
    found, sums = Agreements(()), torch.zeros(2, dtype=torch.float64)
    batches = processes.share(plan_batches(size, batch_size))
    for (left, _), (right, _) in zip(its.gather(batches), mine.gather(batches), strict=True):
        wanted, got = (_tensors(answers(*each)) for each in ((first, left), (own, right)))
        if not pairs:
            pairs = paired_names(got, wanted)
            found = Agreements([one for one in kinds if one.name in pairs])
        got = {name: got[partner] for name, partner in pairs.items()}
        found.add(got, wanted)
        each = torch.stack(
            [LOSSES[one.kind].errors(got[one.name], wanted[one.name], one, temperature)
             for one in found.kinds]
        )  # fmt: skip
        sums += torch.tensor([float(each.mean(0).double().sum()), len(left)])
        progress(Step(f"evaluate {split}", int(sums[1]), size // processes.count))
    loss, count = processes.total(sums).tolist()
    outputs = found.over(processes).outputs()
    return Evaluation(
        accuracy=mean_agreement(outputs),
        top5=None,
        loss=loss / count,
        count=int(count),
        split=split,
        warnings=merged(own.warnings, first.warnings, mine.found()),
        preparation=preparation(_spec(own)),
        measure=AGREEMENT,
        outputs=outputs,
        precision=own.precision,
    )


def image_sets(
    entrants: tuple[Entrant, ...],
    source: DataSource,
    split: str,
    *,
    limit: int | None,
    progress: Progress,
    seed: int = 0,
) -> dict[InputSpec, ImageSet]:
    """Return the images of a split as each model takes them; models that take the same share."""
    sets: dict[InputSpec, ImageSet] = {}
    for spec in dict.fromkeys(_spec(one) for one in entrants):
        sets[spec] = load_split(
            source, split, input=spec, seed=seed, limit=limit, progress=progress
        )
    return sets


def _spec(entrant: Entrant) -> InputSpec:
    if entrant.spec is None:
        raise InputError(
            "the file does not say how images become its input",
            code="NO_INPUT_SPEC",
            where=str(entrant.file),
            hint="add --input-size, --mean and --std",
        )
    return entrant.spec
