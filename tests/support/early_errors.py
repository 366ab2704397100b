"""Command lines that cannot be followed, whatever the model: each with the code of its error."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import prunecli_sample_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LINES = (
    ("prune nothere.pt --flops 0.5", "FILE_NOT_FOUND"),
    ("prune modle.pt --flops 0.5", "FILE_NOT_FOUND"),
    ("prune model.pt", "NO_BUDGET"),
    ("prune model.pt --flops 2", "BAD_BUDGET"),
    ("prune model.pt --flops abc", "BAD_BUDGET"),
    ("prune model.pt --flops 1.5K5", "BAD_BUDGET"),
    ("prune model.pt --latency 5", "BAD_BUDGET"),
    ("prune model.pt --params 0", "BAD_BUDGET"),
    ("prune model.pt --sparsity 1.5", "BAD_BUDGET"),
    ("prune model.pt --bytes 5XB", "BAD_BUDGET"),
    ("prune model.pt --flops 0.5 -o nofolder/x.pt", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 -o taken.pt", "OUTPUT_EXISTS"),
    ("prune model.pt --flops 0.5 -o x.txt", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 -o model.pt", "OUTPUT_IS_INPUT"),
    ("prune model.pt --flops 0.5 -o folder", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 --signal tailor --data digits", "UNKNOWN_SIGNAL"),
    ("prune model.pt --flops 0.5 --signal weight/identty/sum/none", "UNKNOWN_POINTWISE_METRIC"),
    ("prune model.pt --flops 0.5 --signal weight/identity", "BAD_SIGNAL"),
    ("prune model.pt --flops 0.5 --signal taylor", "SIGNAL_NEEDS_DATA"),
    ("prune model.pt --flops 0.5 --signal auto", "SIGNAL_NEEDS_DATA"),
    (
        "prune model.pt --flops 0.5 --signal auto --candidates l1,tailor --data digits",
        "UNKNOWN_SIGNAL",
    ),
    ("prune model.pt --flops 0.5 --signal l1,l2", "USAGE"),
    ("prune model.pt --flops 0.5 --allocation gredy", "UNKNOWN_ALLOCATION"),
    ("prune model.pt --flops 0.5 --aggregate smu", "UNKNOWN_AGGREGATE"),
    ("prune model.pt --flops 0.5 --repair lstqs --data digits", "UNKNOWN_REPAIR"),
    ("prune model.pt --flops 0.5 --repair bn", "REPAIR_NEEDS_DATA"),
    ("prune model.pt --flops 0.5 --method iteratve --data digits", "UNKNOWN_PRUNING_METHOD"),
    ("prune model.pt --flops 0.5 --method iterative", "SIGNAL_NEEDS_DATA"),
    ("prune model.pt --flops 0.5 --epochs 3", "SIGNAL_NEEDS_DATA"),
    (
        "prune model.pt --flops 0.5 --importance prob --allocation inverse-importance",
        "UNKNOWN_IMPORTANCE",
    ),
    (
        "prune model.pt --flops 0.5 --importance probe --allocation inverse-importance",
        "IMPORTANCE_NEEDS_DATA",
    ),
    ("prune model.pt --flops 0.5 --optimizer sdg --epochs 2 --data digits", "UNKNOWN_OPTIMIZER"),
    ("prune model.pt --flops 0.5 --schedule cosin --epochs 2 --data digits", "UNKNOWN_SCHEDULE"),
    ("prune model.pt --flops 0.5 --amp fp61 --epochs 2 --data digits", "BAD_OPTION"),
    ("prune model.pt --flops 0.5 --lr 0.1", "OPTION_WITHOUT_EFFECT"),
    ("prune model.pt --flops 0.5 --granularity wieght", "BAD_GRANULARITY"),
    ("prune model.pt --flops 0.5 --granularity weight", "BAD_BUDGET"),
    (
        "prune model.pt --sparsity 0.5 --granularity weight --allocation lmap",
        "UNKNOWN_WEIGHT_ALLOCATION",
    ),
    ("prune model.pt --sparsity 0.5 --granularity 2:4", "BAD_BUDGET"),
    (
        "prune model.pt --sparsity 0.5 --granularity weight --method iterative --data digits",
        "BAD_OPTION",
    ),
    ("prune model.pt --flops 0.5 --data nodata", "DATA_NOT_FOUND"),
    ("prune model.pt --flops 0.5 --data digit", "DATA_NOT_FOUND"),
    (
        "prune model.pt --flops 0.5 --teacher noteacher.pt --epochs 2 --data digits",
        "FILE_NOT_FOUND",
    ),
    ("prune model.pt --flops 0.5 --report page.txt", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 --report nofolder/page.html", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 --report taken.html", "OUTPUT_EXISTS"),
    ("prune model.pt --flops 0.5 --plots taken.pt", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --flops 0.5 --arch resnt50", "UNKNOWN_ARCHITECTURE"),
    ("prune model.pt --flops 0.5 --arch timm/resnet5O", "UNKNOWN_ARCHITECTURE"),
    ("prune model.pt --flops 0.5 --arch nomodule.x:make", "FACTORY_NOT_FOUND"),
    ("prune model.pt --flops 0.5 --arch-arg num_classes=10", "OPTION_WITHOUT_EFFECT"),
    ("prune model.pt --flops 0.5 --arch resnet50 --arch-arg 10", "USAGE"),
    ("prune model.pt --flops 0.5 --input-size 0", "USAGE"),
    ("prune model.pt --flops 0.5 --mean 0.5,x", "USAGE"),
    ("prune model.pt --flops 0.5 --mean 0.5,0.5 --std 0.5,0.5,0.5", "BAD_OPTION"),
    ("prune model.pt --flops 0.5 --max-file-memory 5XB", "USAGE"),
    ("prune model.pt --flops 0.5 --align 0", "USAGE"),
    ("prune model.pt --latency 0.5 --latency-table nofolder/t.json", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --sweep flops=0.3:0.9:0.1", "SWEEP_NEEDS_DATA"),
    ("prune model.pt --sweep flop=0.3:0.9:0.1 --data digits", "BAD_SWEEP"),
    ("prune model.pt --sweep flops=0.3:0.9:0.1 --data digits --signal l1,tailor", "UNKNOWN_SIGNAL"),
    ("prune model.pt --sweep flops=0.3:0.9:0.1 --data digits -o x.pt", "UNWRITABLE_OUTPUT"),
    ("prune model.pt --sweep flops=0.3:0.9:0.1 --flops 0.5 --data digits", "OPTION_WITHOUT_EFFECT"),
    ("prune model.pt --dead --method iterative --data digits --flops 0.5", "BAD_OPTION"),
    (
        "prune model.pt --flops 0.5 --data digits --method bar --allocation inverse-importance",
        "BAD_OPTION",
    ),
    ("prune model.pt --flops 0.5 --method exact-gates --signal auto --data digits", "BAD_OPTION"),
    ("prune model.pt --flops 0.5 --json -q", "USAGE"),
    ("evaluate nothere.pt --data digits", "FILE_NOT_FOUND"),
    ("evaluate model.pt", "USAGE"),
    ("evaluate model.pt --data nodata", "DATA_NOT_FOUND"),
    ("evaluate model.pt --data digits --split tset", "BAD_OPTION"),
    ("evaluate model.pt --data digits --min-accuracy 90", "USAGE"),
    ("evaluate model.pt --data digits --max-drop 1%", "OPTION_WITHOUT_EFFECT"),
    ("evaluate model.pt --data digits --against nothere.pt --max-drop 1%", "FILE_NOT_FOUND"),
    ("evaluate nothere.onnx --data digits", "FILE_NOT_FOUND"),
    ("evaluate empty.pt --data digits", "EMPTY_FILE"),
    ("export nothere.pt --onnx", "FILE_NOT_FOUND"),
    ("export model.pt --onnx x.xyz", "UNWRITABLE_OUTPUT"),
    ("export model.pt --onnx x.pt", "USAGE"),
    ("export model.pt --onnx nofolder/x.onnx", "UNWRITABLE_OUTPUT"),
    ("export model.pt --onnx taken.onnx", "OUTPUT_EXISTS"),
    ("export model.pt --onnx x.onnx --against nothere.pt", "FILE_NOT_FOUND"),
    ("export model.pt --onnx x.onnx --device cqu", "UNKNOWN_DEVICE"),
    ("export model.pt --onnx x.onnx --batch 0", "USAGE"),
    ("export model.pt --onnx x.onnx --no-benchmark --against model.pt", "OPTION_WITHOUT_EFFECT"),
    ("compress nothere.pt --flops 0.5", "FILE_NOT_FOUND"),
    ("compress model.pt", "NO_WISH"),
    ("compress model.pt --speedup 1", "BAD_BUDGET"),
    ("compress model.pt --speedup 2 --latency 5ms", "BAD_WISH"),
    ("compress model.pt --size small", "BAD_BUDGET"),
    ("compress model.pt --flops 0.5 --data nodata", "DATA_NOT_FOUND"),
    ("compress model.pt --max-drop 1%", "OPTION_WITHOUT_EFFECT"),
    ("compress model.pt --flops 0.5 -o taken.pt", "OUTPUT_EXISTS"),
    ("compress model.pt --flops 0.5 --onnx nofolder/x.onnx", "UNWRITABLE_OUTPUT"),
    ("compress model.pt --flops 0.5 --report page.txt", "UNWRITABLE_OUTPUT"),
    ("finetune nothere.pt --data digits", "FILE_NOT_FOUND"),
    ("finetune model.pt", "USAGE"),
    ("finetune model.pt --data nodata", "DATA_NOT_FOUND"),
    ("finetune model.pt --data digits --teacher noteacher.pt", "FILE_NOT_FOUND"),
    ("finetune model.pt --data digits --optimizer adamm", "UNKNOWN_OPTIMIZER"),
    ("finetune model.pt --data digits --schedule cosin", "UNKNOWN_SCHEDULE"),
    ("finetune model.pt --data digits --augment flipp", "UNKNOWN_AUGMENTATION"),
    ("finetune model.pt --data digits --regularizer bridgout", "UNKNOWN_REGULARIZER"),
    (
        "finetune model.pt --data digits --sparsity 0.9 --sparsity-schedule cubik",
        "UNKNOWN_SPARSITY_SCHEDULE",
    ),
    (
        "finetune model.pt --data digits --sparsity 0.9 --allocation unifrom",
        "UNKNOWN_WEIGHT_ALLOCATION",
    ),
    ("finetune model.pt --data digits --amp fp61", "BAD_OPTION"),
    ("finetune model.pt --data digits --curriculum norecord.parquet", "NO_RECORD"),
    (
        "finetune model.pt --data digits --record-learnability nofolder/r.parquet",
        "UNWRITABLE_OUTPUT",
    ),
    ("finetune model.pt --data digits --epochs 0", "USAGE"),
    ("finetune model.pt --data digits -o taken.pt", "OUTPUT_EXISTS"),
    ("finetune model.pt --data digits --lr -1", "BAD_OPTION"),
    ("analyze nothere", "USAGE"),
    ("analyze nothere.pt", "FILE_NOT_FOUND"),
    ("analyze digits --embedding rwa", "UNKNOWN_EMBEDDING"),
    ("analyze digits --volume bx", "UNKNOWN_VOLUME"),
    ("analyze digits --subset-rule rndom --write-subset sub/", "UNKNOWN_SUBSET_RULE"),
    ("analyze digits --write-subset taken.pt", "NO_SUBSET_SIZE"),
    ("analyze digits --device cqu", "BAD_DEVICE"),
    ("analyze digits --memory 5XB", "USAGE"),
    ("analyze digits --learnability norecord.parquet", "NO_RECORD"),
    ("analyze model.pt --signal tailor", "UNKNOWN_SIGNAL"),
    ("analyze model.pt --oracle", "ORACLE_NEEDS_DATA"),
    ("analyze model.pt --importance", "IMPORTANCE_NEEDS_DATA"),
    ("analyze model.pt --data digits --oracle --signals l1,tailor", "UNKNOWN_SIGNAL"),
    ("methods sginal", "UNKNOWN_KIND_OF_METHOD"),
    ("guide bugets", "UNKNOWN_GUIDE"),
)


def cases() -> Iterator[tuple[list[str], str]]:
    """Yield words to run in the folder of `make_folder`, and the code of the error."""
    for line, code in _LINES:
        yield shlex.split(line), code


def make_folder(folder: Path) -> Path:
    """Return a folder with a model, files that are in the way, and an empty one."""
    from importlib import resources

    folder.mkdir(parents=True, exist_ok=True)
    model = resources.files(prunecli_sample_models) / "digits_resnet.safetensors"
    shutil.copyfile(str(model), folder / "model.pt")
    (folder / "folder").mkdir()
    (folder / "empty.pt").touch()
    for name in ("taken.pt", "taken.html", "taken.onnx"):
        (folder / name).write_bytes(b"taken")
    return folder
