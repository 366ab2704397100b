"""Everything about a run of training that stays the same from its first step to its last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.processes import Processes

if TYPE_CHECKING:
    from accelerate import Accelerator

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.options import FinetuneOptions
    from prunecli.progress import Progress
    from prunecli.training.augment import Augmentation
    from prunecli.training.sampling import Sampling
    from prunecli.training.schedules import Schedule
    from prunecli.training.task import Task


@dataclass(frozen=True)
class Recipe:
    """What a run trains on, and how.

    A round is `round_steps` steps (None: an epoch); after each the network is scored on held-out
    images.
    """

    options: FinetuneOptions
    input: InputSpec
    images: ImageSet
    augmentation: Augmentation
    schedule: Schedule
    peak: float
    task: Task
    accelerator: Accelerator
    steps_per_epoch: int
    progress: Progress
    sampling: Sampling | None = None
    round_steps: int | None = None

    @property
    def processes(self) -> Processes:
        """The processes that train together."""
        return Processes(self.accelerator.num_processes, self.accelerator.process_index)

    @property
    def steps(self) -> int:
        """Steps of as many epochs as the options ask for."""
        return self.options.epochs * self.steps_per_epoch


def derive_seed(seed: int, *parts: int) -> int:
    """Return a 63-bit seed for one use, the same on every machine.

    Every draw of a run has its own, so that a run resumes exactly without a saved random state.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
