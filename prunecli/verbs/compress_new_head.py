"""The first step of `compress` where classes differ: a classifier for those of the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prunecli.options import FinetuneOptions
from prunecli.options.shared import NO_TEACHER
from prunecli.verbs.compress_attempt import Run, goes_on
from prunecli.verbs.finetune import finetune
from prunecli.wording import counted


def transferred(run: Run) -> Run:
    """Return a run on the model with a classifier for the classes of the data, trained now.

    One that an earlier run has trained is taken.
    """
    assert run.data is not None
    path = run.folder / "new-head.pt"
    if not path.exists():
        run.tell(
            f"plan: first train a classifier for the classes of {run.data} on {run.model.name}, "
            f"{counted(run.head_epochs, 'epoch')}"
        )
        finetune(
            run.model,
            data=run.data,
            output=path,
            teacher=Path(NO_TEACHER),
            options=FinetuneOptions(
                epochs=run.head_epochs,
                limit=run.options.limit,
                seed=run.options.seed,
                new_head=True,
            ),
            load=run.load,
            resume=goes_on(path.with_suffix(".run")),
            overwrite=True,
            said=(),
            command=f"prunecli finetune --new-head --epochs {run.head_epochs}",
            progress=run.progress,
        )
    return dataclasses.replace(
        run, model=path, load=None, pretrained=run.model, load_before=run.load
    )
