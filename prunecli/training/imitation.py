"""Make outputs follow a teacher's on images without labels: detectors, maps, embeddings, scores.

Every output gets the loss of its kind (`prunecli.evaluation.output_kinds`), and its features those
of layers that are named. All of them count alike: their losses have about the same scale.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from prunecli.architectures.examples import example_tensors
from prunecli.architectures.inputs import check_takes_images
from prunecli.data import plan_batches
from prunecli.data.pixels import normalise
from prunecli.errors import InputError
from prunecli.evaluation.agreement import Agreements, paired_names
from prunecli.evaluation.batches import check_any
from prunecli.evaluation.memory import memory_format_for
from prunecli.evaluation.output_kinds import (
    MAP,
    SAMPLE,
    SCORES,
    OutputKind,
    kinds_of,
    output_tensors,
)
from prunecli.graph.tracing.running import evaluating
from prunecli.progress import Step
from prunecli.report import AGREEMENT, Evaluation, ImitatedOutput, mean_agreement
from prunecli.training.features import (
    Features,
    features_of,
    is_feature,
)
from prunecli.training.hits import EVALUATION_BATCH
from prunecli.training.output_losses import ATTENTION, HINTS, LOSSES, OutputLoss
from prunecli.training.task import Judged, Teacher, answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.processes import Processes
    from prunecli.progress import Progress


@dataclass(frozen=True)
class Followed:
    """One output, or the features of one layer, and the loss by which it follows."""

    kind: OutputKind
    own: str
    loss: OutputLoss

    @property
    def report(self) -> ImitatedOutput:
        """What is said of it."""
        kind = self.kind
        return ImitatedOutput(kind.name, kind.kind, kind.shape, self.loss.name)


@dataclass(frozen=True)
class Imitation:
    """Follow a teacher: `outputs` of both models, and `features` of layers.

    `own_mode` tells that the model returns something else while it trains; then only what has a
    mode of its own (batch norm, dropout) trains, and the model returns what it does in use.
    """

    teacher: Teacher
    outputs: tuple[Followed, ...]
    hints: tuple[Followed, ...]
    features: Features
    temperature: float
    own_mode: bool
    left_out: tuple[ImitatedOutput, ...] = ()
    measure: str = AGREEMENT

    @property
    def device(self) -> torch.device:
        """Where the teacher is."""
        found = (value.device for value in self.teacher.model.parameters())
        return next(found, torch.device("cpu"))

    @property
    def report(self) -> tuple[ImitatedOutput, ...]:
        """What follows, by which loss, and what does not."""
        followed = (one.report for one in (*self.outputs, *self.hints))
        return (*followed, *self.left_out)

    def train_(self, model: nn.Module) -> None:
        """Put a network into the mode in which it is trained."""
        model.train(not self.own_mode)
        for module in model.modules() if self.own_mode else ():
            if isinstance(module, _BatchNorm | _DropoutNd):
                module.train()

    def run(self, model: nn.Module, bare: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        """Return the outputs and features of a network in training, by name."""
        with self.features.heard(bare) as heard:
            return {**output_tensors(model(pixels)), **heard}

    def teach(self, images: Tensor) -> dict[str, Tensor]:
        """Return the teacher's outputs and features for uint8 images."""
        with self.features.heard(self.teacher.model) as heard:
            return {**output_tensors(answer(self.teacher, images)), **heard}

    def judge(
        self,
        output: Mapping[str, Tensor],
        labels: Tensor,  # noqa: ARG002 - there are none
        taught: Mapping[str, Tensor],
        weights: Tensor | None = None,
    ) -> Judged:
        """Return the mean loss of all that follows, and how far each image is met."""
        followed = (*self.outputs, *self.hints)
        each = [self._errors(one, output, taught) for one in followed]
        losses = torch.stack(each).mean(0)
        loss = (losses if weights is None else weights * losses).mean()
        main = self.outputs[0]
        return Judged(loss, output[main.own].float(), self._met(main, output, taught))

    def _errors(
        self, one: Followed, output: Mapping[str, Tensor], taught: Mapping[str, Tensor]
    ) -> Tensor:
        its = taught[one.kind.name].detach()
        return one.loss.errors(output[one.own], its, one.kind, self.temperature)

    def _met(
        self, one: Followed, output: Mapping[str, Tensor], taught: Mapping[str, Tensor]
    ) -> Tensor:
        """Return how far an output of each image is met [n]: for the bar, not for the choice."""
        own, its = output[one.own].detach(), taught[one.kind.name]
        if one.kind.kind in (SCORES, MAP):
            return (own.argmax(1) == its.argmax(1)).float().reshape(len(own), -1).mean(1)
        return (1 - one.loss.errors(own, its, one.kind, 1.0)).clamp(min=0)

    def evaluate(
        self,
        model: nn.Module,
        images: ImageSet,
        *,
        input: InputSpec,  # noqa: A002
        device: torch.device,
        processes: Processes,
        progress: Progress,
    ) -> Evaluation:
        """Return the agreement with the teacher on images; the loss is that of the outputs."""
        agreements = Agreements([one.kind for one in self.outputs])
        batches = processes.share(plan_batches(len(images), EVALUATION_BATCH // 4))
        sums = torch.zeros(2, dtype=torch.float64)
        total = sum(len(batch) for batch in batches)
        with evaluating(model), torch.no_grad():
            layout = memory_format_for(model, input)
            for pixels, _ in images.gather(batches):
                placed = pixels.to(device)
                its = output_tensors(answer(self.teacher, placed))
                seen = normalise(placed, input, memory_format=layout)
                own = output_tensors(model(seen))
                agreements.add({one.kind.name: own[one.own] for one in self.outputs}, its)
                each = torch.stack([self._errors(one, own, its) for one in self.outputs]).mean(0)
                sums += torch.tensor([float(each.double().sum()), len(pixels)])
                progress(Step(f"evaluate {images.split}", int(sums[1]), total))
        images.hear(processes)
        loss, count = processes.total(sums).tolist()
        check_any(int(count), images.split)
        found = agreements.over(processes).outputs()
        return Evaluation(
            accuracy=mean_agreement(found),
            top5=None,
            loss=loss / count,
            count=int(count),
            split=images.split,
            warnings=images.found(),
            measure=self.measure,
            outputs=found,
        )


def make_imitation(
    student: nn.Module,
    teacher: Teacher,
    images: ImageSet,
    *,
    input: InputSpec,  # noqa: A002
    match: Sequence[str] = (),
    temperature: float,
    classes: int | None = None,
) -> Imitation:
    """Return the task of following a teacher on images like these.

    Both run on a few images first, in evaluation mode: their outputs have to be the same in number
    and shape. `match` names layers whose features follow too, `classes` is how many classes the
    teacher's file says that it tells apart. Raises `InputError`: `TEACHER_MISMATCH`,
    `NO_SUCH_LAYER`, `NO_IMAGES`.
    """
    features = features_of(match, student, teacher.model)
    positions = torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().long()
    home = next((value.device for value in student.parameters()), torch.device("cpu"))
    asked = Imitation(teacher, (), (), features, temperature, own_mode=False)
    own: dict[str, Tensor] = {}
    chunks: list[tuple[int, dict[str, Tensor]]] = []

    def look() -> Iterator[tuple[int, dict[str, Tensor]]]:
        for pixels, _ in images.gather(torch.split(positions, 8)):
            its = asked.teach(pixels.to(asked.device))
            if not own:
                with evaluating(student), torch.no_grad():
                    own.update(asked.run(student, student, normalise(pixels.to(home), input)))
                chunks.append((len(pixels), its))
            yield len(pixels), its

    kinds = kinds_of(look(), model=teacher.model, classes=classes)
    check_any(len(chunks), images.split)
    count, its = chunks[0]
    outputs, hints = _followed(kinds, own, its)
    return Imitation(
        teacher=teacher,
        outputs=outputs,
        hints=hints,
        features=features,
        temperature=temperature,
        own_mode=_returns_something_else(student, images, input, [one.own for one in outputs]),
        left_out=tuple(
            ImitatedOutput(name, "not one row per image", tuple(value.shape), "")
            for name, value in its.items()
            if len(value) != count
        ),
    )


def _followed(
    kinds: Sequence[OutputKind], own: Mapping[str, Tensor], its: Mapping[str, Tensor]
) -> tuple[tuple[Followed, ...], tuple[Followed, ...]]:
    """Return the outputs and the features that follow, each with its loss."""
    known = {kind.name: kind for kind in kinds}
    mine, others = (
        {name: value for name, value in tensors.items() if not is_feature(name)}
        for tensors in (own, its)
    )
    try:
        pairs = paired_names(mine, others)
    except InputError as error:
        raise _mismatch(error.message) from error
    outputs = tuple(
        Followed(known[name], partner, LOSSES[known[name].kind])
        for name, partner in pairs.items()
        if name in known
    )
    if not outputs:
        raise _mismatch("no output has a row for every image")
    hints = (_hint(known[name], own, name) for name in its if is_feature(name) and name in known)
    return outputs, tuple(hints)


def check_following(
    student: nn.Module,
    teacher: nn.Module,
    *,
    input: InputSpec,  # noqa: A002
    teacher_input: InputSpec,
    match: Sequence[str] = (),
) -> None:
    """Raise `InputError` where a teacher's outputs are not those of its student, by one run each.

    `TEACHER_MISMATCH`, `NO_SUCH_LAYER`, and what `check_takes_images` raises.
    """
    check_takes_images(input)
    features_of(match, student, teacher)
    found = []
    for model, spec in ((student, input), (teacher, teacher_input)):
        place = next((value.device for value in model.parameters()), torch.device("cpu"))
        shape = dataclasses.replace(spec, height=input.height, width=input.width)
        with evaluating(model), torch.no_grad():
            found.append(output_tensors(model(example_tensors(shape)[0].to(place))))
    try:
        paired_names(*found)
    except InputError as error:
        raise _mismatch(error.message) from error


def _mismatch(why: str) -> InputError:
    return InputError(
        f"the teacher cannot be followed: {why}",
        code="TEACHER_MISMATCH",
        hint="a teacher has the outputs of its student: give the model that it was pruned from",
    )


def _hint(kind: OutputKind, own: Mapping[str, Tensor], name: str) -> Followed:
    """Return how a layer's features follow: by value; where channels were removed, by map."""
    shape = tuple(own[name].shape[1:]) if name in own else ()
    if shape == kind.shape:
        by_value = OutputKind(name, "features", kind.shape, kind.variance)
        return Followed(by_value, name, HINTS)
    if len(shape) == len(kind.shape) == 3 and shape[1:] == kind.shape[1:]:
        by_map = OutputKind(name, "features", kind.shape, kind.variance)
        return Followed(by_map, name, ATTENTION)
    mine, its = ("x".join(map(str, each)) for each in (shape, kind.shape))
    raise InputError(
        f"{name} returns {mine or 'nothing'}, that of the teacher {its}",
        code="TEACHER_MISMATCH",
        hint="match layers that return images, or whose width was kept",
    )


def _returns_something_else(
    student: nn.Module, images: ImageSet, spec: InputSpec, names: Sequence[str]
) -> bool:
    """Tell whether a network in training returns other outputs than in use, or fails."""
    trained = copy.deepcopy(student).train()
    home = next((value.device for value in student.parameters()), torch.device("cpu"))
    pixels, _ = next(iter(images.gather([torch.arange(min(2, len(images)))])))
    seen = normalise(pixels.to(home), spec)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = output_tensors(trained(seen))
            trained.eval()
            wanted = output_tensors(trained(seen))
    except Exception:  # noqa: BLE001 - a forward that wants targets in training raises anything
        return True
    return any(
        name not in found or found[name].shape != wanted[name].shape for name in names
    ) or len(found) != len(wanted)
