"""The options that several verbs share, each declared once with its help text."""

from pathlib import Path
from typing import Annotated

import typer

OUTPUT = "Output"
READING = "Reading the model"
CHOOSING = "Choosing channels"
TRAINING = "Training"
ITERATIVE = "Iterative (--method iterative)"
DISTILLING = "Learning from a teacher"
GATES = "Gates (exit 1 when not met)"

# The names are repeated here because the registries import torch and completion must be instant;
# a test compares the two.
SIGNALS = ("l1", "l2", "bn-gamma", "geometric-median", "taylor", "fisher", "random")
ALLOCATIONS = (
    "uniform",
    "uniform-plus",
    "global",
    "greedy",
    "knapsack",
    "erdos-renyi",
    "inverse-importance",
    "proportional-importance",
)
IMPORTANCES = ("probe", "sensitivity", "energy")
METHODS = ("one-shot", "iterative")
SPLITS = ("auto", "train", "held_out", "test")

Model = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Checkpoint. Without it: the path on piped stdin, else this folder's newest output.",
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON envelope on stdout.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print the result alone on stdout: the output path, or evaluate's accuracy.",
        rich_help_panel=OUTPUT,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", help="Show every row, library warnings, tracebacks.", rich_help_panel=OUTPUT
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace an output that exists.", rich_help_panel=OUTPUT),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        show_default=False,
        help="Write a page with all figures, tables and pictures: one file that needs no network.",
        rich_help_panel=OUTPUT,
    ),
]
Plots = Annotated[
    Path | None,
    typer.Option(
        "--plots",
        metavar="DIR",
        show_default=False,
        help="Draw the pictures of that page into this folder, as SVG and PNG.",
        rich_help_panel=OUTPUT,
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.")]

DATA_HELP = (
    "Images: folders, a .csv, MNIST, CIFAR, a .npz, a saved Hugging Face data set, or the built-in "
    "'digits'."
)
Data = Annotated[
    str | None, typer.Option("--data", metavar="DIR", show_default=False, help=DATA_HELP)
]
NeededData = Annotated[
    str, typer.Option("--data", metavar="DIR", show_default=False, help=DATA_HELP)
]

Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="Architecture when the file does not tell: 'resnet50', 'timm/NAME', or "
        "'package.module:function'.",
        rich_help_panel=READING,
    ),
]
ArchArg = Annotated[
    list[str] | None,
    typer.Option(
        "--arch-arg",
        metavar="K=V",
        show_default=False,
        help="Argument for the architecture; repeatable.",
        rich_help_panel=READING,
    ),
]
InputSize = Annotated[
    str | None,
    typer.Option(
        "--input-size",
        metavar="N|HxW",
        help="Height and width of the input; normally known from the architecture.",
        rich_help_panel=READING,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="R,G,B", help="Normalisation: mean.", rich_help_panel=READING),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="R,G,B",
        help="Normalisation: standard deviation.",
        rich_help_panel=READING,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Run the code in a pickled model. Only for files that you made yourself.",
        rich_help_panel=READING,
    ),
]

Signal = Annotated[
    str,
    typer.Option(
        "--signal",
        metavar="NAME",
        help="What a channel is worth; see 'prunecli methods'.",
        rich_help_panel=CHOOSING,
        autocompletion=lambda: list(SIGNALS),
    ),
]
Aggregate = Annotated[
    str,
    typer.Option(
        "--aggregate",
        metavar="NAME",
        help="How the scores of coupled layers become one.",
        rich_help_panel=CHOOSING,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, metavar="N", help="Look at N images at most."),
]
DeadThreshold = Annotated[
    float | None,
    typer.Option(
        "--dead-threshold",
        min=0.0,
        metavar="LOSS",
        show_default=False,
        help="Channels are dead too if putting their mean in their place changes the loss by no "
        "more, alone and together: 0.001. Takes a pass over the images per channel.",
        rich_help_panel=CHOOSING,
    ),
]
MinAccuracy = Annotated[
    str | None,
    typer.Option(
        "--min-accuracy",
        metavar="SHARE",
        help="Lowest accuracy to accept: 0.9 or 90%.",
        rich_help_panel=GATES,
    ),
]
