"""Pruning of a module: its channels at once or while it trains, or its single weights."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, overload

from prunecli.api.inputs import Example, as_inputs, images_of_split, known_input, needed_input
from prunecli.api.teaching import teacher_of, with_teacher
from prunecli.architectures.inputs import InputSpec
from prunecli.budget import make_budget
from prunecli.data import open_source
from prunecli.errors import InputError
from prunecli.evaluation.batches import Images
from prunecli.methods.default_recipe import choose, prune_chosen, told
from prunecli.network.traced import read_network
from prunecli.options import PruneOptions
from prunecli.options.declare import chosen, declared, refuse_idle, takes, values_of
from prunecli.options.granularity import parse_pattern
from prunecli.options.methods import ONE_SHOT
from prunecli.options.prune import CHANNEL
from prunecli.preflight.pruning import needs_table, weight_sparsity
from prunecli.progress import Clock, Progress, silent
from prunecli.pruning.road import PruneResult, check_prune
from prunecli.sparse import SparseResult, check_sparsify, sparsify_network
from prunecli.verbs.prune import road_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.budget import Budget
    from prunecli.data import DataSource
    from prunecli.evaluation.batches import Batches
    from prunecli.options import FinetuneOptions


_UNUSED_AT_ONCE: tuple[str, ...] = ("masks", "run_dir")
_UNUSED_IN_TRAINING: tuple[str, ...] = ("batches", "measured_on", "masks")
_UNUSED_BY_WEIGHTS: tuple[str, ...] = ("run_dir",)
"""Arguments of `prune` that a way of pruning has no use for."""


@overload
def prune(
    model: nn.Module,
    example_inputs: Example,
    *,
    granularity: Literal["channel"] = "channel",
    **choices: Any,
) -> PruneResult: ...


@overload
def prune(
    model: nn.Module, example_inputs: Example, *, granularity: str, **choices: Any
) -> PruneResult | SparseResult: ...


@takes(PruneOptions)
def prune(
    model: nn.Module,
    example_inputs: Example,
    *,
    flops: float | str | None = None,
    params: float | str | None = None,
    activations: float | str | None = None,
    bytes: float | str | None = None,  # noqa: A002 - the option is called --bytes
    sparsity: float | str | None = None,
    latency: float | str | None = None,
    options: PruneOptions | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    data: str | Path | None = None,
    input: InputSpec | None = None,  # noqa: A002 - the word for it everywhere here
    teacher: nn.Module | Literal["none"] | None = None,
    masks: Mapping[str, Tensor] | None = None,
    run_dir: Path | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> PruneResult | SparseResult:
    """Return a smaller copy of any module that meets a budget, verified against its mask.

    `example_inputs` is one input, a sequence of them or a mapping by name, with the batch first;
    an input may itself hold tensors, as `[[image, image]]` does. `flops=0.5` keeps at most half;
    `params="1.5M"` is a ceiling; `sparsity=0.5` removes half of the channels; `latency="5ms"`, or a
    fraction, is a ceiling on the time of a forward in ONNX Runtime on this machine's CPU, predicted
    from measured operators (`example_inputs` is one batch of images then).

    Everything else that can be chosen is a keyword of its own, or stands in `options`, or both:
    keywords change `options`. One that nothing follows is refused. Images come from `batches`,
    which yields normalised images and labels, and `measured_on`, whose images repairs and
    candidates are scored on (without it: the same); or both from `data`, a folder or another data
    set, prepared as `input` says. With images, and none of `signal`, `allocation` and `repair`
    named, a one-shot cut takes `options.RECIPE`; `report.choice` says what was taken and why.

    A method that trains does so on `data`, with its log and state in `run_dir`. The model itself,
    before it is pruned, is the teacher (nobody is for the method `iterative`) unless `teacher` is
    another one, or `"none"`. `granularity="weight"` and patterns such as `"2:4"` return a
    `SparseResult`, and keep the zeros of `masks`. `model` is left untouched.

    Raises `GraphError`, `GateError` (an infeasible budget), `InputError` and `ProofError`.
    """
    given = {} if teacher is None else {"teacher": teacher}
    options = chosen(PruneOptions, options, choices, latency=latency, **given)
    if teacher is not None:
        refuse_idle(declared(PruneOptions), {"teacher"}, values_of(options))
    budget = make_budget(
        flops=flops,
        params=params,
        activations=activations,
        bytes=bytes,
        sparsity=sparsity,
        latency=latency,
        needed=not options.dead and parse_pattern(options.granularity) is None,
    )
    decided = choose(options, budget, images=data is not None or batches is not None)
    options = decided.options
    road_of(options, budget)
    if input is not None and data is None:
        raise InputError(
            "input says how images of data are prepared, and no data is named",
            code="OPTION_WITHOUT_EFFECT",
            hint="add data='images/', or leave input out",
        )
    _refuse_unused(options, batches=batches, measured_on=measured_on, masks=masks, run_dir=run_dir)
    source = None if data is None else open_source(data)
    if source is not None:
        input = needed_input(input)  # noqa: A001
        if options.method == ONE_SHOT:
            batches = batches or images_of_split(source, "train", input, options, progress)
            measured_on = measured_on or images_of_split(
                source, "held_out", input, options, progress
            )
    images, clock = Images(batches, measured_on), Clock(progress)
    takes_in = input or known_input(example_inputs, model)
    if options.granularity != CHANNEL:
        sparse = _sparsified(
            model,
            example_inputs,
            sparsity=weight_sparsity(budget if budget.limits else None),
            options=options,
            masks=masks,
            images=images,
            dry_run=dry_run,
            clock=clock,
        )
        return dataclasses.replace(told(sparse, decided.choice), input=takes_in)
    if options.method != ONE_SHOT:
        trained = _trained(
            model,
            example_inputs,
            source,
            input=input,
            budget=budget,
            options=options,
            teacher=teacher,
            run_dir=run_dir,
            dry_run=dry_run,
            clock=clock,
        )
        return dataclasses.replace(told(trained, decided.choice), input=takes_in)
    check_prune(budget, options, images)
    training = _training_after(options, source)
    taught = None
    if training is not None:
        from prunecli.training import check_frozen

        check_frozen(model, training.freeze)
        taught = teacher_of(model, options, teacher, input=needed_input(input))
    spec = InputSpec.of(example_inputs, model) if needs_table(budget, options) else None
    found = prune_chosen(
        read_network(model, as_inputs(example_inputs), clock=clock),
        decided,
        input=spec,
        budget=budget,
        images=images,
        dry_run=dry_run,
        clock=clock,
    )
    found = dataclasses.replace(found, input=takes_in)
    if training is None or taught is None or source is None:
        return found
    from prunecli.methods.after_cut import planned_for, train_cut

    if found.model is None:
        return with_teacher(planned_for(found, training), taught)
    tuned = train_cut(
        found,
        source,
        training,
        input=needed_input(input),
        teacher=taught.model,
        teacher_input=taught.input,
        run_dir=run_dir,
        resume=options.training.resume,
        clock=clock,
    )
    return dataclasses.replace(with_teacher(tuned, taught), input=takes_in)


def _training_after(options: PruneOptions, source: DataSource | None) -> FinetuneOptions | None:
    """Return the training that follows a cut at once; None for none."""
    if options.training.epochs is None:
        return None
    from prunecli.methods.after_cut import training_after

    return training_after(options, data=source is not None)


def _refuse_unused(options: PruneOptions, **given: Any) -> None:
    """Raise `InputError` for an argument that a way of pruning has no use for, or misses."""
    if options.training.resume and given["run_dir"] is None:
        raise InputError(
            "resume goes on from the folder of a run, and none was given",
            code="OPTION_WITHOUT_EFFECT",
            hint="add run_dir=Path('run'), or leave resume out",
        )
    at_once = _UNUSED_AT_ONCE[: 1 if options.training.epochs else None]  # a run needs a folder
    unused = at_once if options.method == ONE_SHOT else _UNUSED_IN_TRAINING
    way = f"method={options.method!r}"
    if options.granularity != CHANNEL:
        unused, way = _UNUSED_BY_WEIGHTS, f"granularity={options.granularity!r}"
    for name in unused:
        if given[name] is not None:
            raise InputError(
                f"{name} has no effect with {way}",
                code="OPTION_WITHOUT_EFFECT",
                hint=f"leave {name} out",
            )


def _trained(
    model: nn.Module,
    example_inputs: Example,
    source: DataSource | None,
    *,
    input: InputSpec | None,  # noqa: A002
    budget: Budget,
    options: PruneOptions,
    teacher: nn.Module | str | None,
    run_dir: Path | None,
    dry_run: bool,
    clock: Clock,
) -> PruneResult:
    """Return what a method that trains makes of a module; it trains on `source`."""
    from prunecli.methods.road import check_trained, train_and_prune
    from prunecli.methods.ways import way_of

    if source is None:
        raise InputError(
            f"the method {options.method} trains the model, and no images were given",
            code="SIGNAL_NEEDS_DATA",
            hint="add data='images/' and input=InputSpec(...)",
        )
    way = way_of(options.method)
    check_trained(way, options)
    taught = teacher_of(model, options, teacher, input=needed_input(input))
    result = train_and_prune(
        way,
        read_network(model, as_inputs(example_inputs), clock=clock),
        source,
        input=needed_input(input),
        budget=budget,
        options=options,
        teacher=taught.model,
        teacher_input=taught.input,
        run_dir=run_dir,
        dry_run=dry_run,
        clock=clock,
    )
    return with_teacher(result, taught)


@takes(PruneOptions)
def sparsify(
    model: nn.Module,
    example_inputs: Example,
    *,
    sparsity: float | None = None,
    options: PruneOptions | None = None,
    masks: Mapping[str, Tensor] | None = None,
    batches: Callable[[], Batches] | None = None,
    measured_on: Callable[[], Batches] | None = None,
    dry_run: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> SparseResult:
    """Return a copy of any module with single weights zeroed, verified to equal dense x mask.

    `sparsity=0.9` zeroes nine in ten weights of all convolutions and linear layers, the least
    salient ones; `granularity="2:4"` keeps 2 of every 4 along a layer's inputs, and takes no
    `sparsity`. `masks` are those that the model has already, `repair=("bn",)` estimates batch
    norm anew on `batches`. Keywords change `options`. `model` is left untouched. Raises what
    `prune` raises.
    """
    usual = {} if options is not None else {"granularity": "weight"}
    return _sparsified(
        model,
        example_inputs,
        sparsity=sparsity,
        options=chosen(PruneOptions, options, {**usual, **choices}),
        masks=masks,
        images=Images(batches, measured_on),
        dry_run=dry_run,
        clock=Clock(progress),
    )


def _sparsified(
    model: nn.Module,
    example_inputs: Example,
    *,
    sparsity: float | None,
    options: PruneOptions,
    masks: Mapping[str, Tensor] | None,
    images: Images,
    dry_run: bool,
    clock: Clock,
) -> SparseResult:
    """Check, trace, and zero weights."""
    check_sparsify(options, sparsity, images)
    return sparsify_network(
        read_network(model, as_inputs(example_inputs), clock=clock),
        sparsity=sparsity,
        options=options,
        masks=masks,
        images=images,
        dry_run=dry_run,
        clock=clock,
    )
