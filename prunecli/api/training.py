"""Fine-tuning of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.architectures.examples import example_arguments
from prunecli.data import open_images, open_source
from prunecli.network.traced import read_network
from prunecli.options import (
    FinetuneOptions,
)
from prunecli.options.declare import chosen, takes
from prunecli.options.finetune import OUTPUTS
from prunecli.progress import Progress, silent
from prunecli.sparse import weight_layers
from prunecli.training import (
    FinetuneResult,
    HeadFirst,
    check_head_trained,
    head_epochs,
    with_new_head,
)
from prunecli.training import finetune as finetune_network

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from prunecli.architectures.reference import InputSpec


@takes(FinetuneOptions)
def finetune(
    model: nn.Module,
    data: str | Path,
    *,
    input: InputSpec,  # noqa: A002 - the word for it everywhere here
    options: FinetuneOptions | None = None,
    teacher: nn.Module | None = None,
    masks: Mapping[str, Tensor] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    **choices: Any,
) -> FinetuneResult:
    """Return a trained copy of `model`, its best epoch chosen on images held out from training.

    What `masks` leave out (those of `sparsify`) stays zero. With `loss="outputs"` the outputs of
    `teacher` are followed, on images without labels. With `new_head` the copy has a classifier for
    the classes of the data. Keywords change `options`.
    """
    options = chosen(FinetuneOptions, options, choices, teacher=teacher is not None)
    grows = options.sparsity is not None
    method = None
    if options.new_head:
        classes = len(open_source(data).classes)
        model, head = with_new_head(model, input, classes=classes, seed=options.seed)
        check_head_trained(head, options.freeze)
        epochs = head_epochs(options.epochs, options.head_epochs)
        method = HeadFirst(head, epochs=epochs, first_rate=options.first_rate)
    layers = weight_layers(read_network(model, example_arguments(input, model))) if grows else ()
    follows = options.loss == OUTPUTS
    return finetune_network(
        model,
        open_images(data) if follows else open_source(data),
        input=input,
        options=options,
        teacher=teacher,
        masks=masks,
        layers=layers,
        method=method,
        run_dir=run_dir,
        resume=resume,
        progress=progress,
    )
