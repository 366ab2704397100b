"""A network's latency table: measured, written, and read again."""

from __future__ import annotations

import json
import math
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from prunecli.allocation import keep_mask
from prunecli.atomic import atomic_write
from prunecli.cost.latency import (
    Grid,
    LatencyTable,
    Machine,
    bind,
    find_grid,
    operators_of,
    parse_table,
)
from prunecli.cost.latency.table import bad_table
from prunecli.cost.staircase import processor
from prunecli.errors import InputError, PruneError
from prunecli.exporting.onnx.file import to_onnx
from prunecli.exporting.onnx.runtime import (
    CPU_PROVIDER,
    open_session,
    physical_cores,
    random_feeds,
    run,
)
from prunecli.exporting.timing.benchmark import time_interleaved
from prunecli.exporting.timing.engines import Contestant, Setting, find_cpu
from prunecli.exporting.timing.operators import LEAST_ROUNDS, least_times, measure_grid
from prunecli.files import read_json, reading
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec
    from prunecli.cost.model import Widths
    from prunecli.network.traced import Network

SECONDS = 45.0
"""About how long the operators of a network are measured, all together."""

WHOLE_SECONDS, ROUNDS = 3.0, 50
"""How long and how often the dense network is run at most; four times in all."""

TRIAL_SHARE, TRIAL_STEP = 0.7, 16
"""The share of its channels that every group of a trial keeps, and the multiple that this is."""

GAINS = (0.5, 1.2)
"""The least and the most that a trial may say of a predicted saving: beyond lies a mistake."""


def this_machine(*, threads: int | None = None, batch: int = 1) -> Machine:
    """Return what a table measured here and now holds for; `threads=None`: one per core."""
    return Machine(
        processor=processor(),
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

    A network with about 70 % of its channels, timed beside the dense one in turns, then tells how
    much of a predicted saving is real. Equal operators are measured once. Takes about `seconds`,
    and longer only where so many operators are so slow that a few rounds of each take longer.
    Raises what `to_onnx` raises.
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
        trial = _trial_share(network, path, setting)
    alone = [find_grid(grids, item).at(item.inputs[-1], item.outputs[-1]) for item in operators]
    table = LatencyTable(
        fingerprint=network.coupling.fingerprint,
        machine=machine,
        dense_ms=min(whole),
        operators_ms=sum(alone),
        activations=network.cost.dense["activations"],
        grids=grids,
    )
    return table if trial is None else replace(table, gain=_gain(table, network, *trial))


def _trial_share(network: Network, dense: Path, setting: Setting) -> tuple[Widths, float] | None:
    """Return the widths of a trial and the share of the time that it takes, timed in turns.

    None where a network of such widths cannot be had.
    """
    widths = network.cost.dense_widths.copy()
    for at, group in enumerate(network.coupling.groups):
        step = max(1, TRIAL_STEP // group.multiplicity)
        widths[at] = min(group.width, max(step, round(group.width * TRIAL_SHARE / step) * step))
    if bool((widths == network.cost.dense_widths).all()):
        return None
    keep = keep_mask(network.coupling.groups, np.zeros(network.coupling.atom_count), widths)
    path = dense.with_name("trial.onnx")
    with suppress(PruneError):
        slim, _ = network.graph_network(keep)
        to_onnx(slim, path, input=setting.input)
        runners = [find_cpu(()).prepare(Contestant(file), setting) for file in (path, dense)]
        times = time_interleaved(runners, runs=2 * ROUNDS, time_limit=2 * WHOLE_SECONDS)
        few, many = np.median(times, axis=0)
        return widths, float(few / many)
    return None


def _gain(table: LatencyTable, network: Network, widths: Widths, share: float) -> float:
    """Return how much of the saving that is predicted at these widths a real one comes to."""
    model = bind(table, network.trace, network.coupling)
    activations = network.cost.cost(widths)["activations"]
    predicted = 1 - model.predict(widths, activations=activations) / table.dense_ms
    return float(np.clip((1 - share) / predicted, *GAINS)) if predicted > 0 else 1.0


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
