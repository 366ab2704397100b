"""One honest file of every format that is read, how it is read, and how it is damaged."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from prunecli.architectures.reference import InputSpec
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import load
from prunecli.checkpoint.sniff import corrupt
from prunecli.cost.latency.table import parse_table
from prunecli.data import load_split, open_source
from prunecli.exporting import read_metadata
from prunecli.exporting.onnx.runtime import open_session, run
from prunecli.exporting.timing.latency_table import read_table
from prunecli.files import read_json, reading
from prunecli.learnability.record import Record, read_record, write_record
from prunecli.plan import PruningPlan
from prunecli.training.state import read_fields
from prunecli_cli import config
from prunecli_cli.main import command_options

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = Path(__file__).resolve().parents[1] / "artefacts" / "files"
SAMPLE = Path(__file__).resolve().parents[2] / "sample_models" / "digits_vgg.safetensors"
INPUT = InputSpec(1, 8, 8, (0.3,), (0.4,))


@dataclass(frozen=True)
class Format:
    """`make` puts an honest file into a folder and returns it; `read` reads it, or raises."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def mutated(content: bytes, seed: int) -> bytes:
    """Return a content with something wrong in it: bits, bytes, lengths, numbers, ends."""
    draw = random.Random(seed)
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        kind = draw.randrange(8)
        near = draw.randrange(min(len(data), 2048) + 1)  # descriptions stand at either end
        at = draw.choice((draw.randrange(len(data) + 1), near, len(data) - near))
        at = min(at, max(len(data) - 1, 0))
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and data:
            data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            size = draw.choice((2, 4, 8))
            data[at : at + size] = draw.choice((b"\xff", b"\x7f", b"\x00", b"\x80")) * size
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            del data[at : at + draw.randrange(1, 64)]
        elif kind == 5:
            data[at:at] = draw.randbytes(draw.randrange(1, 32))
        elif kind == 6:
            data[at:at] = data[at : at + draw.randrange(1, 256)] * draw.choice((1, 2, 50))
        else:
            digits = draw.choice((b"9" * 20, b"-1", b"[" * 5000, b"1e999", b'"', b"\n", b"NaN"))
            data[at:at] = digits
    return bytes(data)


def _state() -> dict[str, torch.Tensor]:
    return dict(load(SAMPLE).checkpoint.tensors)


def _zip(folder: Path) -> Path:
    torch.save({"state_dict": _state(), "epoch": 3}, folder / "m.pt")
    return folder / "m.pt"


def _module(folder: Path) -> Path:
    model = instantiate(load(SAMPLE).checkpoint)
    torch.save({"model": model, "args": {"data": Path("images")}}, folder / "m.pt")
    return folder / "m.pt"


def _legacy(folder: Path) -> Path:
    torch.save(_state(), folder / "m.th", _use_new_zipfile_serialization=False)
    return folder / "m.th"


def _safetensors(folder: Path) -> Path:
    save_file(_state(), folder / "m.safetensors")
    return folder / "m.safetensors"


def _model_folder(folder: Path) -> Path:
    save_file(_state(), folder / "model.safetensors")
    names = {at: f"digit {at}" for at in range(10)}
    (folder / "config.json").write_text(json.dumps({"num_channels": 1, "id2label": names}))
    given = {"size": {"height": 8, "width": 8}, "image_mean": [0.3], "image_std": [0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return folder / "preprocessor_config.json"


def _read_model_folder(path: Path) -> object:
    return load(path.parent, architecture="digits_vgg")


def _copied(name: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(FILES / name, folder / name))


def _read_named(path: Path) -> object:
    return load(path, architecture="digits_vgg")


def _run_artefact(path: Path) -> object:
    checkpoint = load(path).checkpoint
    model = instantiate(checkpoint)
    return checkpoint.architecture, model


def _onnx(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 64), np.float32), "w")
    nodes = [
        helper.make_node("Flatten", ["input"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])], [weight],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), folder / "m.onnx"
    )
    return folder / "m.onnx"


def _read_onnx(path: Path) -> object:
    read_metadata(path)
    session = open_session(path, threads=1)
    return run(session, {session.get_inputs()[0].name: np.zeros((1, 1, 8, 8), np.float32)})


def _image(ending: str, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "b").mkdir(parents=True)
        pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        Image.fromarray(pixels).save(folder / "b" / "ok.png")
        path = folder / "a" / f"x{ending}"
        path.parent.mkdir()
        Image.fromarray(pixels).save(path, **options)
        return path

    return make


def _read_image(path: Path) -> object:
    return load_split(open_source(path.parents[1]), "all", input=INPUT)


def _csv(folder: Path) -> Path:
    for at in range(4):
        Image.fromarray(np.full((8, 8), at, np.uint8)).save(folder / f"{at}.png")
    path = folder / "t.csv"
    path.write_text("path,label,split\n" + "".join(f"{at}.png,{at % 2},train\n" for at in range(4)))
    return path


def _npz(folder: Path) -> Path:
    pixels = np.arange(640, dtype=np.uint8).reshape(10, 8, 8)
    np.savez_compressed(folder / "d.npz", x=pixels, y=np.arange(10) % 2)
    return folder / "d.npz"


def _idx(folder: Path) -> Path:
    head = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (10, 8, 8))
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + bytes(640)))
    labels = b"\0\0\x08\x01" + (10).to_bytes(4, "big") + bytes(at % 2 for at in range(10))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    return path


def _cifar(folder: Path) -> Path:
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}, protocol=2))
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    return folder / "data_batch_1"


def _hugging_face(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        import pyarrow as pa

        file = Path(folder / "pixels.png")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
        rows = [{"bytes": file.read_bytes(), "path": None}] * 4
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(rows, kind), "label": pa.array([0, 1, 0, 1])})
        with (
            pa.OSFile(str(folder / "data.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
        features = {
            "image": {"_type": "Image"},
            "label": {"names": ["a", "b"], "_type": "ClassLabel"},
        }
        state = {"_data_files": [{"filename": "data.arrow"}], "_split": "train"}
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
        return folder / name

    return make


def _read_folder(path: Path) -> object:
    return load_split(open_source(path.parent), "all", input=INPUT)


def _plan(folder: Path) -> Path:
    plan = PruningPlan("f", {"conv1": (0, 1, 5)}, {"conv1.weight": {0: (0, 1, 5)}})
    (folder / "plan.json").write_text(plan.dumps())
    return folder / "plan.json"


def _read_plan(path: Path) -> object:
    """Read a plan as it is read within an artefact."""
    with reading(path, corrupt):
        return PruningPlan.from_json(read_json(path))


def _latency(folder: Path) -> Path:
    machine = {"processor": "x", "provider": "p", "threads": 1, "batch": 1, "onnxruntime": "1"}
    grid = {"inputs": [1, 2], "outputs": [1, 2], "steps": [1, 1], "ms": [[1.0, 2.0], [2.0, 3.0]]}
    data = {"schema": 1, "kind": "latency table", "fingerprint": "f", "machine": machine,
            "dense_ms": 2.0, "operators_ms": 1.0, "activations": 9.0,
            "operators": {"conv": [grid]}}  # fmt: skip
    parse_table(data, where="here")
    (folder / "t.json").write_text(json.dumps(data))
    return folder / "t.json"


def _settings(folder: Path) -> Path:
    text = '[tool.prunecli]\nseed = 1\n[tool.prunecli.prune]\nflops = 0.5\nexclude = ["a", "b"]\n'
    (folder / "pyproject.toml").write_text(text)
    return folder / "pyproject.toml"


def _record(folder: Path) -> Path:
    hits = np.ones((6, 4), np.bool_)
    names = tuple(f"#{at}" for at in range(6))
    write_record(
        Record(names, np.arange(6) % 2, ("a", "b"), hits, "evaluation", {}), folder / "r.parquet"
    )
    return folder / "r.parquet"


def _run_state(folder: Path) -> Path:
    torch.save({"schema": 1, "model": {"w": torch.zeros(9)}, "epoch": 2}, folder / "state.pt")
    return folder / "state.pt"


FORMATS: dict[str, Format] = {
    "checkpoint, zip": Format(_zip, _read_named),
    "checkpoint, pickled module": Format(_module, _read_named),
    "checkpoint, old format": Format(_legacy, _read_named),
    "checkpoint, safetensors": Format(_safetensors, _read_named),
    "model folder, images": Format(_model_folder, _read_model_folder),
    "artefact, pruned": Format(_copied("pruned_vgg.safetensors"), _run_artefact),
    "artefact, graph": Format(_copied("graph.pt"), _run_artefact),
    "artefact, sparse": Format(_copied("sparse_resnet.pt"), _run_artefact),
    "ONNX": Format(_onnx, _read_onnx),
    "image, PNG": Format(_image(".png"), _read_image),
    "image, JPEG": Format(_image(".jpg"), _read_image),
    "image, GIF": Format(_image(".gif"), _read_image),
    "image, TIFF": Format(_image(".tiff", compression="tiff_deflate"), _read_image),
    "image, WebP": Format(_image(".webp"), _read_image),
    "table of images": Format(_csv, open_source),
    "arrays (.npz)": Format(_npz, open_source),
    "MNIST, gzip": Format(_idx, _read_folder),
    "CIFAR, pickle": Format(_cifar, _read_folder),
    "Hugging Face, state": Format(_hugging_face("state.json"), _read_folder),
    "Hugging Face, features": Format(_hugging_face("dataset_info.json"), _read_folder),
    "Hugging Face, Arrow": Format(_hugging_face("data.arrow"), _read_folder),
    "plan": Format(_plan, _read_plan),
    "latency table": Format(_latency, read_table),
    "settings": Format(_settings, lambda path: config.load(command_options(), folder=path.parent)),
    "record of learning": Format(_record, read_record),
    "state of a run": Format(_run_state, lambda path: read_fields(path, path.read_bytes())),
}
