"""The options that several verbs share, each declared once, and the names of the help's panels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from prunecli.options.declare import Needs, option
from prunecli.options.names import Names, plus

if TYPE_CHECKING:
    from pathlib import Path

WISHES = "Wishes (at least one)"
SEARCH = "Search"
BUDGET = "Budget (at least one, or --dead)"
CRITERION = "Importance criterion and allocation"
METHOD = "Training while or after pruning (--method, --epochs)"
LEARNING = "Learning what to prune (--method exact-gates, bar, gates, ...)"
LATENCY = "Latency budget (ONNX Runtime on this CPU)"
DATA = "Data"
MODEL = "Model analysis"
DATASET = "Data set analysis"
TRAINING = "Training"
DISTILLATION = "Knowledge distillation"
REGULARIZATION = "Regularization by noise"
SPARSITY = "Sparsity during training (existing zeros are always kept)"
TRANSFER = "Transfer to other classes"
LEARNABILITY = "Learnability of training images"
PRECISION = "Precision (INT8, half)"
TIMING = "Benchmark"
GATES = "Gates (exit code 1 if not met)"
OUTPUT = "Output"
READING = "Loading the model"
PANELS = (
    WISHES,
    BUDGET,
    DATA,
    SEARCH,
    CRITERION,
    METHOD,
    LEARNING,
    LATENCY,
    TRAINING,
    DISTILLATION,
    TRANSFER,
    REGULARIZATION,
    SPARSITY,
    LEARNABILITY,
    MODEL,
    DATASET,
    PRECISION,
    TIMING,
    OUTPUT,
    GATES,
    READING,
)
"""The panels of a help in their order."""

SPLITS = ("auto", "train", "held_out", "test")

AGGREGATE = "sum"
"""How the scores of coupled layers become one unless somebody says otherwise."""

seed = partial(option, 0, "Random seed.", metavar="N", minimum=0, panel=DATA)
optimizer = partial(
    option,
    "sgd",
    "Optimizer. See 'prunecli methods optimizer'.",
    metavar="NAME",
    names=Names("optimizer"),
)
aggregate = partial(
    option,
    AGGREGATE,
    "How scores of coupled layers are combined. See 'prunecli methods aggregate'.",
    metavar="NAME",
    panel=CRITERION,
    names=Names("aggregate"),
)
dead_threshold = partial(
    option,
    None,
    "Also treat channels as dead if replacing them by their mean changes the loss by at most "
    "this much, alone and together (0.001). Takes one pass over the images per channel.",
    metavar="LOSS",
    minimum=0.0,
    panel=CRITERION,
)
amp = partial(
    option,
    "auto",
    "Mixed precision: auto, no, fp16 or bf16.",
    metavar="KIND",
    choices=("auto", "no", "fp16", "bf16"),
)
NO_TEACHER = "none"
"""The word for a training without a teacher."""


def teacher_file(teacher: Path | None) -> Path | None:
    """Return the file of a teacher that was named; None for the word for nobody."""
    return None if str(teacher) == NO_TEACHER else teacher


def _may_teach(teacher: object) -> bool:
    """Tell whether a teacher was named, or may still be found (None); False: there is none."""
    return teacher is not False and str(teacher) != NO_TEACHER


TAUGHT = Needs({"teacher": _may_teach}, hint="add --teacher MODEL")
temperature = partial(
    option, 4.0, "Distillation temperature.", metavar="X", minimum=0.01, needs=(TAUGHT,)
)
alpha = partial(
    option,
    0.9,
    "Weight of the distillation loss against the loss on labels.",
    metavar="X",
    minimum=0,
    maximum=1,
    needs=(TAUGHT,),
)
schedule = partial(
    option,
    help="Learning-rate schedule. See 'prunecli methods schedule'.",
    metavar="NAME",
    names=Names("schedule"),
)
clip = partial(option, 0.0, "Gradient clipping norm. 0 disables it.", metavar="X", minimum=0)
ema = partial(
    option,
    0.0,
    "Decay of the exponential moving average of the weights. 0 disables it.",
    metavar="X",
    minimum=0,
    maximum=1,
)
RISES = (
    Needs(
        {"schedule": lambda name: name not in (None, "one-cycle")},
        hint="add --schedule cosine: one-cycle has a rise of its own",
    ),
)
warmup = partial(
    option,
    0.0,
    "Epochs in which the learning rate rises in a line to where the schedule begins (0.5).",
    metavar="X",
    minimum=0,
    needs=RISES,
)
patience = partial(
    option,
    None,
    "Stop early, after this many epochs without a better one on held-out images.",
    metavar="N",
    minimum=1,
)
accumulate = partial(
    option,
    1,
    "Batches whose gradients are added up for one update.",
    metavar="N",
    minimum=1,
)
freeze = partial(
    option,
    (),
    "Layers that are not trained, by name or pattern ('features.*'). Their batch norms keep their "
    "statistics. Repeatable.",
    metavar="PATTERN",
)
new_head = partial(
    option,
    False,
    "Put a new classifier for the classes of the data on the model.",
    basic=True,
)
augment = partial(
    option,
    "auto",
    "Data augmentation, one or several (imagenet+randaugment+mixup). See 'prunecli methods "
    "augmentation'.",
    metavar="NAMES",
    names=Names("augmentation", words=("auto",), read=plus),
)
workers = partial(
    option,
    None,
    "Processes that decode and change training images ahead of the training (default: up to 8 "
    "beside a GPU; on a CPU none: threads decode).",
    metavar="N",
    minimum=0,
)
train_device = partial(
    option,
    "auto",
    "Device to train on: auto (a GPU if there is one), cpu, cuda, cuda:1, mps.",
    metavar="NAME",
    suggested=("auto", "cpu", "cuda", "mps"),
)
compiled = partial(
    option,
    False,
    "Compile the model for training (torch.compile). Pays on GPUs and in long runs.",
)
log = partial(
    option,
    (),
    "Trackers to log every epoch to: tensorboard, wandb, mlflow. csv is always written to the "
    "folder of the run.",
    metavar="NAMES",
    form="names",
    choices=("csv", "tensorboard", "wandb", "mlflow"),
)
threads = partial(
    option, None, "CPU threads (default: one per physical core).", metavar="N", minimum=1
)
batch_size = partial(option, 128, "Batch size.", metavar="N", panel=TRAINING)
