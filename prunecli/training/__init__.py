"""Fine-tuning with or without a teacher, and evaluation."""

from prunecli.training.augment import AUGMENTATIONS
from prunecli.training.devices import PRECISIONS
from prunecli.training.finetune import FinetuneResult, check_options, finetune
from prunecli.training.losses import distillation_loss
from prunecli.training.optimizers import OPTIMIZERS
from prunecli.training.regularizers import REGULARIZERS, check_regularizer
from prunecli.training.schedules import SCHEDULES
from prunecli.training.state import has_state

__all__ = [
    "AUGMENTATIONS",
    "OPTIMIZERS",
    "PRECISIONS",
    "REGULARIZERS",
    "SCHEDULES",
    "FinetuneResult",
    "check_options",
    "check_regularizer",
    "distillation_loss",
    "finetune",
    "has_state",
]
