"""What continuous integration reads: annotations, the summary of a job, and JUnit files."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from prunecli.atomic import atomic_write
from prunecli.errors import GateError, PruneError
from prunecli.wording import printable

SUMMARY = "GITHUB_STEP_SUMMARY"
"""The variable that names the file which GitHub shows as the summary of a job."""


def annotation(kind: str, message: str, *, title: str) -> str:
    r"""Return a workflow command of GitHub: an `error`, a `warning` or a `notice`.

    >>> annotation("error", "0.5 < 0.9\nhint: 50 % more", title="a,b")
    '::error title=a%2Cb::0.5 < 0.9%0Ahint: 50 %25 more'
    """
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def told(error: PruneError) -> str:
    """Return what an error says: what, where and what next."""
    where = [] if error.where is None else [f"where: {error.where}"]
    hint = [] if error.hint is None else [f"hint: {error.hint}"]
    return "\n".join((error.message, *where, *hint))


def add_summary(
    command: str, error: PruneError | None, *, text: str, warnings: Sequence[str]
) -> None:
    """Add a run to the summary of the job, in Markdown; nothing where there is none.

    Raises `OSError` where it cannot be written.
    """
    place = os.environ.get(SUMMARY)
    if not place:
        return
    parts = [f"### {command}: {'passed' if error is None else 'failed'}"]
    if error is not None:
        parts.append(f"**{_markdown(error.message)}**")
        parts += [_markdown(error.hint)] if error.hint else []
    parts += [f"- warning: {_markdown(warning)}" for warning in warnings]
    if text.strip():
        parts.append(f"```text\n{printable(text).rstrip().replace('```', chr(39) * 3)}\n```")
    with Path(place).open("a", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n\n")


def _markdown(text: str) -> str:
    """Return text as it is, where Markdown and HTML would read marks in it."""
    marks = {mark: f"\\{mark}" for mark in "\\`*_[]|#~"}
    marks |= {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    told = "".join(marks.get(letter, letter) for letter in printable(text))
    return " ".join(told.split())


def write_junit(
    path: Path,
    command: str,
    error: PruneError | None,
    *,
    words: Sequence[str],
    text: str,
    seconds: float,
) -> None:
    """Write one test case for a run: a failure for a gate that is not met, an error for any other.

    Raises `InputError` (`UNWRITABLE_OUTPUT`).
    """
    failed = isinstance(error, GateError)
    counts = {
        "tests": "1",
        "failures": str(int(failed)),
        "errors": str(int(error is not None and not failed)),
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    suites = ET.Element("testsuites", {"name": "prunecli", **counts})
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    suite = ET.SubElement(suites, "testsuite", {"name": command, "timestamp": moment, **counts})
    case = ET.SubElement(
        suite, "testcase", classname=command.replace(" ", "."), name=_xml(" ".join(words)),
        time=counts["time"],
    )  # fmt: skip
    if error is not None:
        kind = "failure" if failed else "error"
        problem = ET.SubElement(case, kind, type=error.code, message=_xml(error.message))
        problem.text = _xml(told(error))
    if text.strip():
        ET.SubElement(case, "system-out").text = _xml(text.rstrip())
    ET.indent(suites)
    with atomic_write(path) as unfinished:
        ET.ElementTree(suites).write(unfinished, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Return text without what XML cannot hold."""
    return printable(text)
