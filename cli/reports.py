"""What the verbs report that are about prunecli itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecli.report import AccuracyChange, BenchmarkRow, ModelFigures, Verified


@dataclass(frozen=True)
class Method:
    """One entry of a registry."""

    kind: str
    name: str
    summary: str
    source: str


@dataclass(frozen=True)
class MethodsReport:
    """The outcome of `methods`."""

    methods: tuple[Method, ...]


@dataclass(frozen=True)
class GuideEntry:
    """One line of the list of guides."""

    name: str
    topic: str
    summary: str


@dataclass(frozen=True)
class GuideList:
    """The outcome of `guide` without a name."""

    guides: tuple[GuideEntry, ...]


@dataclass(frozen=True)
class GuideText(GuideEntry):
    """The outcome of `guide NAME`: its text is Markdown."""

    text: str


@dataclass(frozen=True)
class EnvReport:
    """The outcome of `env`; `providers` are those of ONNX Runtime that really load."""

    python: str
    platform: str
    cpus: int
    packages: Mapping[str, str | None]
    cuda: tuple[str, ...]
    providers: Mapping[str, bool]


@dataclass(frozen=True)
class DemoStep:
    """One command of the demo and what came of it."""

    command: str
    seconds: float
    data: Any


@dataclass(frozen=True)
class DemoResult:
    """A sample model before all steps and after them; `accuracy` is on `images` test images.

    `file_bytes` are those of the checkpoints, `benchmark` is of their ONNX files.
    """

    model: str
    before: "ModelFigures"
    after: "ModelFigures"
    file_bytes: tuple[int, int]
    benchmark: tuple["BenchmarkRow", ...]
    accuracy: "AccuracyChange"
    images: int
    verified: "Verified"


@dataclass(frozen=True)
class DemoReport:
    """The outcome of `demo`."""

    folder: Path
    steps: tuple[DemoStep, ...]
    result: DemoResult
    seconds: float
