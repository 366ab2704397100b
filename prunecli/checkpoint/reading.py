"""Read a checkpoint of any known kind, without executing anything in it."""

from __future__ import annotations

import dataclasses
import json
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from prunecli.architectures.arguments import check_factory_arguments
from prunecli.architectures.inputs import of_shapes
from prunecli.architectures.reference import ArchitectureRef
from prunecli.checkpoint.artefact import FORMAT, Checkpoint, Loaded, checkpoint_from_header
from prunecli.checkpoint.inert import is_json
from prunecli.checkpoint.model_folder import read_folder
from prunecli.checkpoint.module_layers import check_layers
from prunecli.checkpoint.modules import Opened, open_modules, wrapped
from prunecli.checkpoint.pickle_scan import scan_file, unsafe_pickle
from prunecli.checkpoint.recognise import UNKNOWN_PIXELS, recognise
from prunecli.checkpoint.selection import Selection
from prunecli.checkpoint.sniff import (
    PLAIN_PICKLE,
    SAFETENSORS,
    TORCH_LEGACY,
    TORCH_ZIP,
    corrupt,
    not_a_checkpoint,
    sniff,
)
from prunecli.checkpoint.state_dict import Unwrapped, no_state_dict, unwrap
from prunecli.checkpoint.torch_files import read_legacy, read_zip
from prunecli.checkpoint.ultralytics_files import describe_ultralytics
from prunecli.checkpoint.values import as_float32, check_finite, check_kinds
from prunecli.errors import InputError, LoadRefusedError, first_line
from prunecli.files import file_sha256, is_model_folder, reading

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.checkpoint.described import Described
    from prunecli.checkpoint.inert import Stub

_SHOWN = 5


@dataclass(frozen=True)
class Contents:
    """What a file holds: any object, and our header when it is an artefact of ours.

    `modules` are the records of pickled modules, by the place of their weights in it; `described`
    is what stands beside the weights of their architecture.
    """

    value: Any
    header: Mapping[str, Any] | None = None
    modules: Mapping[str, Stub] = field(default_factory=dict)
    described: Described | None = None


def load(
    path: Path | str,
    *,
    architecture: str | None = None,
    architecture_args: Mapping[str, Any] | None = None,
    weights: str | None = None,
    selection: Selection | None = None,
    input_size: tuple[int, int] | None = None,
    input_shapes: Sequence[tuple[str, tuple[int, ...], str]] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    allow_pickle: bool = False,
) -> Loaded:
    """Return the checkpoint in `path`, with its architecture found from names and shapes.

    Reads what `torch.save` wrote (either format, bare or wrapped), safetensors, folders of the
    Hugging Face hub, and our own artefacts, by content and not by suffix. `architecture` names it
    instead: a registered name or `package.module:factory`, which is imported and called with
    `architecture_args`. `weights` names one of several sets of weights, and `selection` says which
    tensors of it are meant; an artefact of ours needs neither. `input_size` (height, width), `mean`
    and `std` override what comes with the architecture, `input_shapes` (name, shape without a
    batch, type) all of it. `allow_pickle` lets the file run code.

    Raises `LoadRefusedError` for files that cannot or must not be read, and `InputError` for
    weights that fit no architecture or several, or are not finite.
    """
    file = Path(path)
    told: tuple[str, ...] = ()
    if is_model_folder(file):
        folder = read_folder(file, _tensors_in, architecture=architecture)
        sha256 = folder.sha256
        contents = Contents(folder.tensors, described=folder.described)
    else:
        kind = sniff(file)
        sha256 = file_sha256(file)
        contents = read_contents(kind, file, allow_pickle=allow_pickle)
        told = (_PICKLE_RAN,) if allow_pickle and kind != SAFETENSORS else ()
    if contents.header is not None:
        said = architecture_args or {}
        loaded = _own(contents, file, allow_pickle=allow_pickle, expected=architecture, said=said)
        told += _of_no_use(weights, selection)
    else:
        loaded = _foreign(
            contents,
            file,
            sha256,
            architecture=architecture,
            arguments=architecture_args,
            weights=weights,
            selection=selection or Selection(),
        )
    checkpoint, notes = loaded
    check_finite(checkpoint.tensors, file)
    known = of_shapes(input_shapes, checkpoint.input) if input_shapes else checkpoint.input
    spec = _override(known, file, input_size=input_size, mean=mean, std=std)
    if not spec.is_images:
        notes = tuple(note for note in notes if note != UNKNOWN_PIXELS)
    return Loaded(dataclasses.replace(checkpoint, input=spec), (*told, *notes), sha256)


def read_contents(kind: str, path: Path, *, allow_pickle: bool) -> Contents:
    """Return what a file of a `kind` (see `sniff`) holds; raises `LoadRefusedError`."""
    return _READERS[kind](path, allow_pickle)


def _of_no_use(weights: str | None, selection: Selection | None) -> tuple[str, ...]:
    """Return what to say of choices that are for another file of the same command."""
    said = {"weights": weights, **(selection or Selection()).to_json()}
    names = [f"--{name}" for name, value in said.items() if value]
    told = f"{' and '.join(names)} have no effect here: an artefact of prunecli holds one model"
    return (told,) if names else ()


def _tensors_in(path: Path) -> Any:
    """Return what a file of weights within a folder holds."""
    return read_contents(sniff(path), path, allow_pickle=False).value


_PICKLE_RAN = "the file was read with --allow-pickle, so code in it could run"


def _own(
    contents: Contents,
    path: Path,
    *,
    allow_pickle: bool,
    expected: str | None,
    said: Mapping[str, Any],
) -> tuple[Checkpoint, tuple[str, ...]]:
    """Return an artefact of ours; a factory that it names is code, so somebody must ask for it."""
    header: Mapping[str, Any] = contents.header or {}
    checkpoint = checkpoint_from_header(header, contents.value, where=str(path))
    name = checkpoint.architecture.name
    dense = checkpoint.metadata.get("dense")
    names = {name, dense.get("name") if isinstance(dense, Mapping) else name}
    if expected is not None and expected not in names:
        raise InputError(
            f"this artefact holds the architecture {name}, not {expected}",
            code="ARCHITECTURE_MISMATCH",
            where=str(path),
            hint="leave --arch out: an artefact knows its architecture",
        )
    if checkpoint.architecture.is_factory and expected is None and not allow_pickle:
        raise LoadRefusedError(
            f"using this artefact would import and call {name}",
            code="UNTRUSTED_FACTORY",
            where=str(path),
            hint=f"if you know that code, say so: --arch {name}",
        )
    for reference in (checkpoint.architecture, *_dense(dense, path)):
        if reference.is_factory and not allow_pickle:
            check_factory_arguments(reference, said)
    return checkpoint, ()


def _dense(described: Any, path: Path) -> tuple[ArchitectureRef, ...]:
    """Return the architecture that a file says it was cut from, if it does."""
    if described is None:
        return ()
    try:
        return (ArchitectureRef.from_json(described),)
    except (KeyError, TypeError, ValueError) as error:
        raise corrupt(path, "the architecture that it was cut from is not described") from error


def _foreign(
    contents: Contents,
    path: Path,
    sha256: str,
    *,
    architecture: str | None,
    arguments: Mapping[str, Any] | None,
    weights: str | None,
    selection: Selection,
) -> tuple[Checkpoint, tuple[str, ...]]:
    unwrapped = unwrap(contents.value, weights=weights, where=str(path))
    if unwrapped is None:
        raise no_state_dict(path, contents.value)
    held = {name: tensor.detach() for name, tensor in unwrapped.tensors.items()}
    unwrapped = dataclasses.replace(unwrapped, tensors=held)
    check_kinds(unwrapped.tensors, path)
    module = contents.modules.get(unwrapped.place)
    named = architecture is not None
    described = contents.described
    if module is not None and not named:
        described = describe_ultralytics(module, path)
    if described is not None and described.architecture is not None:
        architecture = described.architecture
        arguments = {**described.arguments, **(arguments or {})}
    found = recognise(
        unwrapped,
        where=str(path),
        sha256=sha256,
        architecture=architecture,
        arguments=arguments,
        selection=selection,
    )
    if module is not None and not named:
        check_layers(module, found.architecture, path)
    choices = {"weights": weights, **selection.to_json()}
    tensors, notes = as_float32(found.tensors)
    checkpoint = Checkpoint(
        architecture=found.architecture,
        tensors=tensors,
        input=(described and described.input) or found.input,
        classes=described.classes if described else None,
        metadata=_provenance(unwrapped, path, sha256, published=found.published, choices=choices),
    )
    told = described.notes if described else ()
    said = (*told, *_pickled_module(module), *_passed_over(unwrapped))
    return checkpoint, (*said, *found.notes, *notes)


def _provenance(
    unwrapped: Unwrapped,
    path: Path,
    sha256: str,
    *,
    published: str | None,
    choices: Mapping[str, Any],
) -> dict[str, Any]:
    source = {"file": path.name, "sha256": sha256, "place": unwrapped.place}
    source |= {key: value for key, value in choices.items() if value}
    optional = {"published": published, "claimed_accuracy": dict(unwrapped.accuracy)}
    return {"source": source, **{key: item for key, item in optional.items() if item}}


def _pickled_module(module: Stub | None) -> tuple[str, ...]:
    if module is None:
        return ()
    name = wrapped(module).name
    return (f"a whole pickled module ({name}): its weights were read, its code was not run",)


def _passed_over(unwrapped: Unwrapped) -> tuple[str, ...]:
    if not unwrapped.others:
        return ()
    others = ", ".join(repr(name) for name in unwrapped.others)
    other = f"--weights {unwrapped.others[0]} takes those"
    return (
        f"the weights under {unwrapped.place!r} were taken; the file also has {others} ({other})",
    )


def _read_torch(path: Path, allow_pickle: bool, *, read: Callable[[Path], Any]) -> Contents:
    if allow_pickle:
        try:
            value = _run(path)
        except Exception as error:
            raise _pickle_failed(path, error) from error
        return _as_contents(Opened(_modules_to_states(value)), path)
    with reading(path, corrupt):
        return _as_contents(open_modules(read(path)), path)


def _run(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notes on its own old formats
        return torch.load(path, map_location="cpu", weights_only=False)


def _as_contents(opened: Opened, path: Path) -> Contents:
    value = opened.value
    if isinstance(value, Mapping) and value.get("format") == FORMAT:
        if not is_json({key: item for key, item in value.items() if key != "state_dict"}):
            raise corrupt(path, "what describes it is not plain data")
        return Contents(value.get("state_dict", {}), header=value)
    return Contents(value, modules=opened.modules)


def _read_pickle(path: Path, allow_pickle: bool) -> Contents:
    if not allow_pickle:
        scan = scan_file(path)
        if scan.unsafe:
            raise unsafe_pickle(path, scan.unsafe)
        if not scan.complete:
            raise corrupt(path, "it starts like a pickle and ends before it is complete")
        raise not_a_checkpoint(
            path,
            "this is a plain pickle, not written by torch.save",
            hint="save it with torch.save(state_dict, 'weights.pt')",
        )
    try:
        with path.open("rb") as file:
            value = pickle.load(file)  # noqa: S301  # the user asked for it, and is warned
    except Exception as error:
        raise _pickle_failed(path, error) from error
    return Contents(_modules_to_states(value))


def _read_safetensors(path: Path, allow_pickle: bool) -> Contents:  # noqa: ARG001
    with reading(path, corrupt):
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata[FORMAT]) if FORMAT in metadata else None
    return Contents(tensors, header)


_READERS: Mapping[str, Callable[[Path, bool], Contents]] = {
    TORCH_ZIP: partial(_read_torch, read=read_zip),
    TORCH_LEGACY: partial(_read_torch, read=read_legacy),
    PLAIN_PICKLE: _read_pickle,
    SAFETENSORS: _read_safetensors,
}


def _pickle_failed(path: Path, error: Exception) -> LoadRefusedError:
    return LoadRefusedError(
        f"unpickling failed: {type(error).__name__}: {first_line(error)}",
        code="PICKLE_FAILED",
        where=str(path),
        hint="the classes it wants must be importable, in the versions that wrote it",
    )


def _modules_to_states(value: Any) -> Any:
    """Replace whole pickled modules by their state dicts."""
    if isinstance(value, nn.Module):
        return dict(value.state_dict())
    if isinstance(value, Mapping):
        return {key: _modules_to_states(item) for key, item in value.items()}
    return value


def _override(
    spec: InputSpec,
    path: Path,
    *,
    input_size: tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> InputSpec:
    if not spec.is_images:
        _refuse_pixels(spec, path, input_size, mean, std)
        return spec
    height, width = input_size or (spec.height, spec.width)
    if input_size is None and height == 0:
        raise InputError(
            "the size of the images that this model takes is not known",
            code="UNKNOWN_INPUT_SIZE",
            where=str(path),
            hint="say it: --input-size 224 or --input-size 224x320; --input-shape 1x32x32x32 for "
            "something else than images",
        )
    changed = dataclasses.replace(
        spec,
        height=height,
        width=width,
        mean=spec.mean if mean is None else tuple(mean),
        std=spec.std if std is None else tuple(std),
    )
    known = (spec.channels, 0)  # nobody need have said how pixels are normalised
    wrong = (
        (min(height, width) < 1, f"an input size of {height}x{width} has no pixels"),
        (len(changed.mean) not in known, f"mean needs {spec.channels} numbers"),
        (len(changed.std) not in known, f"std needs {spec.channels} numbers"),
        (min(changed.std, default=1.0) <= 0, "std must be above 0"),
    )
    for applies, message in wrong:
        if applies:
            raise InputError(
                message,
                code="BAD_INPUT_SPEC",
                where=str(path),
                hint=f"the model takes {spec.channels} channels; one number for each",
            )
    return changed


def _refuse_pixels(spec: InputSpec, path: Path, *said: object) -> None:
    """Raise `InputError` where somebody says how images become the input of another network."""
    if any(value is not None for value in said):
        raise InputError(
            f"this model does not take one batch of images, but {spec.described}",
            code="BAD_INPUT_SPEC",
            where=str(path),
            hint="leave --input-size, --mean and --std out",
        )
