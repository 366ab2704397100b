"""What `finetune` can be asked for."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunecli.options import shared
from prunecli.options.declare import excluded_by, needs, option
from prunecli.options.names import Names

_training = partial(option, panel=shared.TRAINING)
_noise = partial(option, panel=shared.REGULARIZATION, metavar="X")
_PERTURBING = needs("regularizer", "bridgeout", "bridgeout-linear")
_zeroing = partial(
    option, panel=shared.SPARSITY, needs=(needs("sparsity", hint="add --sparsity 0.9"),)
)
LABELS, OUTPUTS = "labels", "outputs"
"""What a model may be trained for."""

_LABELLED = needs("loss", LABELS, hint="leave --loss outputs out: it looks at no labels")
_transfer = partial(option, panel=shared.TRANSFER, needs=(needs("new_head"),))
_learning = partial(option, panel=shared.LEARNABILITY, metavar="FILE.parquet", needs=(_LABELLED,))
_RECORDED = needs("record_learnability", hint="add --record-learnability FILE.parquet")


@dataclass(frozen=True)
class FinetuneOptions:
    """How a model is trained; `lr=None` takes the optimizer's own default.

    With a `sparsity`, weights are zeroed during training: from what the model has at the start,
    by `sparsity_schedule`, every `sparsity_every` steps over the first `sparsity_until` of them.
    An update takes the gradient of `accumulate` batches. `warmup` is in epochs. `freeze` are
    patterns of layers that stay as they are; after `patience` epochs without a better one on
    held-out images training stops early.
    With `new_head` the classifier is replaced by one for the classes of the data; it is trained
    alone for `head_epochs`, then all layers are, the first ones at `first_rate` of its rate.
    A `regularizer` perturbs the weights with noise of size |w|^(`q` / 2) at rate `p`, or drops
    outputs (`prunecli.training.regularizers`).
    `record_learnability` looks at every training image after every epoch, or, in the mode
    `training`, takes what was right as it was trained on (`prunecli.learnability`).
    With the `loss` `outputs` the model follows its teacher alone (`prunecli.training.imitation`).
    `curriculum` and `importance_sampling` are such records: what is trained on follows their mean,
    with as many updates as without (`prunecli.training.sampling`).
    """

    epochs: int = _training(3, "Training epochs.", metavar="N", minimum=1, basic=True)
    lr: float | None = _training(
        None,
        "Peak learning rate (default: the optimizer's own).",
        metavar="X",
        basic=True,
    )
    optimizer: str = shared.optimizer(panel=shared.TRAINING, basic=True)
    schedule: str = shared.schedule("one-cycle", panel=shared.TRAINING, basic=True)
    batch_size: int = shared.batch_size(minimum=1, basic=True)
    weight_decay: float = _training(5e-4, "Weight decay.", metavar="X", minimum=0)
    momentum: float = _training(0.9, "SGD momentum.", metavar="X", minimum=0, maximum=1)
    warmup: float = shared.warmup(panel=shared.TRAINING)
    patience: int | None = shared.patience(panel=shared.TRAINING)
    accumulate: int = shared.accumulate(panel=shared.TRAINING)
    freeze: tuple[str, ...] = shared.freeze(panel=shared.TRAINING)
    device: str = shared.train_device(panel=shared.TRAINING)
    compile: bool = shared.compiled(panel=shared.TRAINING)
    log: tuple[str, ...] = shared.log(panel=shared.OUTPUT)
    temperature: float = shared.temperature(panel=shared.DISTILLATION)
    alpha: float = shared.alpha(panel=shared.DISTILLATION, needs=(shared.TAUGHT, _LABELLED))
    amp: str = shared.amp(panel=shared.TRAINING)
    ema: float = shared.ema(panel=shared.TRAINING)
    augment: str = shared.augment(panel=shared.TRAINING)
    workers: int | None = shared.workers(panel=shared.TRAINING)
    label_smoothing: float = _training(
        0.0, "Label smoothing.", metavar="X", minimum=0, maximum=1, needs=(_LABELLED,)
    )
    clip: float = shared.clip(panel=shared.TRAINING)
    held_out: float = _training(
        0.1,
        "Fraction of the training images held out to choose the best epoch.",
        metavar="X",
        minimum=0,
        maximum=0.9,
    )
    limit: int | None = option(
        None,
        "Maximum number of training images.",
        metavar="N",
        minimum=1,
        panel=shared.DATA,
    )
    seed: int = shared.seed()
    loss: str = option(
        LABELS,
        "What is trained for. 'labels': the labels of the data, and the teacher. 'outputs': the "
        "teacher's outputs alone, of any model, on images without labels.",
        metavar="KIND",
        choices=(LABELS, OUTPUTS),
        panel=shared.DISTILLATION,
        basic=True,
    )
    match: tuple[str, ...] = option(
        (),
        "Layers whose features follow the teacher's too ('backbone.*'), with --loss outputs. "
        "Repeatable.",
        metavar="PATTERN",
        panel=shared.DISTILLATION,
        needs=(needs("loss", OUTPUTS), excluded_by("compile")),
    )

    @property
    def update_size(self) -> int:
        """Images whose gradients make one update."""
        return self.batch_size * self.accumulate

    new_head: bool = shared.new_head(panel=shared.TRANSFER, needs=(_LABELLED,))
    head_epochs: int | None = _transfer(
        None,
        "Epochs in which the new classifier is trained alone (default: a quarter of them).",
        metavar="N",
        minimum=0,
    )
    first_rate: float = _transfer(
        0.1,
        "Learning rate of the first layers, as a fraction of that of the new classifier; between "
        "them it rises layer by layer.",
        metavar="FRACTION",
        minimum=0,
        maximum=1,
    )
    regularizer: str | None = option(
        None,
        "Regularise by noise on weights or outputs during training. "
        "See 'prunecli methods regularizer'.",
        metavar="NAME",
        names=Names("regularizer"),
        panel=shared.REGULARIZATION,
    )
    p: float = _noise(
        0.3,
        "Probability of dropping a weight (bridgeout) or an output (dropout).",
        minimum=0,
        maximum=1,
        needs=(needs("regularizer", hint="add --regularizer bridgeout"),),
    )
    q: float = _noise(
        1.5,
        "Norm of Bridgeout's penalty: noise has the size |w|^(q/2). 2 is dropout of weights; "
        "smaller ones pull small weights to zero.",
        minimum=0,
        needs=(_PERTURBING,),
    )
    target_fraction: float = _noise(
        0.75,
        "Fraction of each filter that Bridgeout perturbs, its smallest kernels (or, of linear "
        "layers, weights). 1 perturbs all.",
        minimum=0,
        maximum=1,
        needs=(_PERTURBING,),
    )
    granularity: str = _zeroing("weight", "What --sparsity zeroes: weight.", metavar="KIND")
    sparsity: float | None = option(
        None,
        "Zero this fraction of the weights during training (0.9 or 90%).",
        metavar="FRACTION",
        panel=shared.SPARSITY,
        form="share",
    )
    sparsity_schedule: str = _zeroing(
        "cubic",
        "How the sparsity grows. See 'prunecli methods \"sparsity schedule\"'.",
        metavar="NAME",
        names=Names("sparsity schedule"),
    )
    sparsity_every: int = _zeroing(
        100, "Steps between two updates of the masks.", metavar="N", minimum=1
    )
    sparsity_until: float = _zeroing(
        0.6,
        "Fraction of the steps during which the sparsity grows.",
        metavar="FRACTION",
        minimum=0,
        maximum=1,
    )
    allocation: str = _zeroing(
        "uniform",
        "How the zeros are distributed over layers. See 'prunecli methods \"weight allocation\"'.",
        metavar="NAME",
        names=Names("weight allocation"),
    )
    record_learnability: bool = False
    record_learnability_mode: str = option(
        "evaluation",
        "When predictions are recorded. 'evaluation': in an extra pass after each epoch. "
        "'training': on the augmented images during training, at no cost.",
        metavar="KIND",
        panel=shared.LEARNABILITY,
        choices=("evaluation", "training"),
        needs=(_RECORDED,),
    )
    curriculum: tuple[Path, ...] = _learning(
        (),
        "Curriculum learning: train on the easiest 30 % of each class first, on all images from "
        "half of the epochs on. The number of updates stays the same. Takes a learnability "
        "record. Repeatable.",
    )
    importance_sampling: tuple[Path, ...] = _learning(
        (),
        "Importance sampling: draw hard images more often and weight them less, so that the mean "
        "loss is unchanged. Takes a learnability record. Repeatable.",
    )
