"""How the files of the project depend on each other, read from their import statements."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"prunecli": "prunecli", "cli": "prunecli_cli", "tests": "tests"}
"""The folders that are read, and what their packages are called."""

MOST_LOOSE = 10


def modules(folder: str, root: Path = ROOT) -> dict[str, Path]:
    """Return all files of a package by the name that they are imported by."""
    found = {}
    for path in (root / folder).rglob("*.py"):
        parts = (NAMES[folder], *path.relative_to(root / folder).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, name: str, known: Mapping[str, Path]) -> Iterator[str]:
    """Yield the files that a file imports, those for its annotations and in functions too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
            parts = [*(above if node.level else ()), *([node.module] if node.module else ())]
            base = ".".join(parts)
            for alias in node.names:
                # What is taken from a package is a file of its own, or comes from its `__init__`.
                inner = f"{base}.{alias.name}"
                if inner in known:
                    yield inner
                elif base in known:
                    yield base


def imports(names: Iterable[str], root: Path = ROOT) -> dict[str, set[str]]:
    """Return what every file of some packages imports of them."""
    known = {name: path for folder in names for name, path in modules(folder, root).items()}
    return {name: set(imported(path, name, known)) - {name} for name, path in known.items()}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return files that import each other in a circle, one after the other; none is best."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    graph = imports(("prunecli", "cli"))
    assert len(graph) > 300
    assert sum(map(len, graph.values())) > 1000
    assert circle(graph) == []


def test_few_modules_lie_loose_beside_the_packages() -> None:
    loose = {path.stem for path in (ROOT / "prunecli").glob("*.py")} - {"__main__"}
    assert len(loose) <= MOST_LOOSE, sorted(loose)


def test_no_file_of_tests_imports_another() -> None:
    borrowed = {
        name: taken
        for name, wanted in imports(("tests",)).items()
        if (taken := {other for other in wanted if other.rpartition(".")[2].startswith("test_")})
    }
    assert borrowed == {}


SPELLINGS = (
    "from prunecli.b import thing",
    "from prunecli import b",
    "import prunecli.b",
    "from . import b",
    "from .b import thing",
    "def late():\n    from prunecli.b import thing",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from prunecli.b import thing",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_circle_is_found_however_it_is_spelled(tmp_path: Path, spelling: str) -> None:
    (tmp_path / "prunecli").mkdir()
    for name, text in {"__init__": "", "a": spelling, "b": "from prunecli.a import late"}.items():
        (tmp_path / "prunecli" / f"{name}.py").write_text(text, encoding="utf-8")
    assert set(circle(imports(("prunecli",), tmp_path))) == {"prunecli.a", "prunecli.b"}


def test_a_file_that_takes_a_name_from_its_own_package_closes_a_circle(tmp_path: Path) -> None:
    folder = tmp_path / "prunecli" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("from prunecli.data.load import read\n")
    (folder / "load.py").write_text("from prunecli.data import Source\n")
    found = circle(imports(("prunecli",), tmp_path))
    assert set(found) == {"prunecli.data", "prunecli.data.load"}
