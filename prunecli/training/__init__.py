"""Fine-tuning with or without a teacher, and evaluation."""

from prunecli.training.augment import AUGMENTATIONS
from prunecli.training.choose_task import map_count
from prunecli.training.devices import PRECISIONS, device_of
from prunecli.training.finetune import check_options, finetune
from prunecli.training.freezing import check_frozen, check_head_trained
from prunecli.training.imitation import Imitation, check_following
from prunecli.training.losses import distillation_loss
from prunecli.training.new_head import with_new_head
from prunecli.training.optimizers import OPTIMIZERS
from prunecli.training.regularizers import REGULARIZERS, check_regularizer
from prunecli.training.result import FinetuneResult
from prunecli.training.schedules import SCHEDULES
from prunecli.training.state import has_state
from prunecli.training.transfer import HeadFirst, head_epochs

__all__ = [
    "AUGMENTATIONS",
    "OPTIMIZERS",
    "PRECISIONS",
    "REGULARIZERS",
    "SCHEDULES",
    "FinetuneResult",
    "HeadFirst",
    "Imitation",
    "check_following",
    "check_frozen",
    "check_head_trained",
    "check_options",
    "check_regularizer",
    "device_of",
    "distillation_loss",
    "finetune",
    "has_state",
    "head_epochs",
    "map_count",
    "with_new_head",
]
