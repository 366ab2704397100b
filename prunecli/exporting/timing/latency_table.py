"""A network's latency table: measured, written, and read again."""

from __future__ import annotations

import json
import math
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from prunecli.atomic import atomic_write
from prunecli.cost.latency import Grid, LatencyTable, Machine, find_grid, operators_of, parse_table
from prunecli.cost.latency.table import bad_table
from prunecli.errors import InputError
from prunecli.exporting.onnx.file import to_onnx
from prunecli.exporting.onnx.runtime import (
    CPU_PROVIDER,
    open_session,
    physical_cores,
    random_feeds,
    run,
)
from prunecli.exporting.timing.benchmark import Contestant, Setting, find_cpu, time_interleaved
from prunecli.exporting.timing.operators import LEAST_ROUNDS, least_times, measure_grid
from prunecli.files import read_json, reading
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.network.traced import Network

SECONDS = 45.0
"""About how long the operators of a network are measured, all together."""

WHOLE_SECONDS, ROUNDS = 3.0, 50
"""How long and how often the dense network is run at most; four times in all."""


def this_machine(*, threads: int | None = None, batch: int = 1) -> Machine:
    """Return what a table measured here and now holds for; `threads=None`: one per core."""
    return Machine(
        processor=_processor(),
        provider=CPU_PROVIDER,
        threads=threads or physical_cores(),
        batch=batch,
        onnxruntime=ort.__version__,
    )


def measure_table(
    network: Network,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    machine: Machine,
    seconds: float = SECONDS,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure every costly operator of a network over a grid of widths, and the network itself.

    Equal operators are measured once. Takes about `seconds`, and longer only where so many
    operators are so slow that a few rounds of each take longer. Raises what `to_onnx` raises.
    """
    grids: dict[str, tuple[Grid, ...]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.onnx"
        progress(Step("export dense", 0))
        to_onnx(network.model, path, input=input)
        setting = Setting(input, machine.batch, machine.threads, 0)
        whole = [_milliseconds(path, setting)]
        operators = operators_of(network.trace, network.coupling)
        different = list(
            {(item.shape, item.inputs, item.outputs): item for item in operators}.values()
        )
        for at, item in enumerate(different):
            progress(Step("latency table", at, len(different)))
            grid = measure_grid(
                item.shape,
                item.inputs,
                item.outputs,
                steps=item.steps,
                batch=machine.batch,
                threads=machine.threads,
                seconds=seconds / len(different),
            )
            grids[item.shape.key] = (*grids.get(item.shape.key, ()), grid)
        progress(Step("latency table", len(different), len(different)))
        whole.append(_milliseconds(path, setting))
    alone = [find_grid(grids, item).at(item.inputs[-1], item.outputs[-1]) for item in operators]
    return LatencyTable(
        fingerprint=network.coupling.fingerprint,
        machine=machine,
        dense_ms=min(whole),
        operators_ms=sum(alone),
        activations=network.cost.dense["activations"],
        grids=grids,
    )


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table as JSON, atomically."""
    with atomic_write(path) as temporary:
        text = json.dumps(table.to_json(), indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_table(path: Path) -> LatencyTable:
    """Read a table; raise `InputError` (`BAD_LATENCY_TABLE`) for a file that is none."""
    with reading(path, lambda path, reason: bad_table(reason, str(path))):
        return parse_table(read_json(path), where=str(path))


def check_table(table: LatencyTable, network: Network, machine: Machine, path: Path) -> list[str]:
    """Return warnings about a table that was measured elsewhere; refuse that of another network.

    Raises `InputError` (`TABLE_OF_ANOTHER_NETWORK`, `TABLE_OF_ANOTHER_SETTING`).
    """
    if table.fingerprint != network.coupling.fingerprint:
        raise InputError(
            "the latency table was measured on another model",
            code="TABLE_OF_ANOTHER_NETWORK",
            where=str(path),
            hint="a pruned model needs a table of its own, that of the dense one does not serve: "
            "name another file, a table that is missing is measured",
        )
    there, here = table.machine, machine
    if (there.threads, there.batch) != (here.threads, here.batch):
        raise InputError(
            f"the latency table is for {there.threads} threads and batches of {there.batch}, not "
            f"for {here.threads} and {here.batch}",
            code="TABLE_OF_ANOTHER_SETTING",
            where=str(path),
            hint=f"add --threads {there.threads} --latency-batch {there.batch}, or name another "
            "file: a table that is missing is measured",
        )
    differ = [
        f"{name} {before!r} there, {now!r} here"
        for name in ("processor", "provider", "onnxruntime")
        if (before := getattr(there, name)) != (now := getattr(here, name))
    ]
    if not differ:
        return []
    return [f"the latency table {path} was measured on another machine: {'; '.join(differ)}"]


def _milliseconds(path: Path, setting: Setting) -> float:
    """Return the time of the fastest run, or the sum of its nodes' fastest if that is less.

    On a busy machine no long run is left alone from its beginning to its end, but every node is at
    some time; of very short nodes the profiler's clock makes too much.
    """
    runner = find_cpu(()).prepare(Contestant(path), setting)
    alone = time_interleaved([runner], runs=ROUNDS, time_limit=WHOLE_SECONDS)
    prefix = str(path.with_name("dense"))
    session = open_session(path, threads=setting.threads, profile=prefix)
    feeds = random_feeds(session, setting.input, batch=setting.batch, seed=setting.seed)
    begin, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or (
        rounds < ROUNDS and time.perf_counter() - begin < WHOLE_SECONDS
    ):
        run(session, feeds)
        rounds += 1
    nodes = least_times(session.end_profiling())
    return min(float(alone.min()) * 1e3, sum(nodes.values()) or math.inf)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
