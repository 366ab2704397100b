"""Processor time on one thread, the wall clock otherwise, and a machine that is not left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunecli.exporting.timing.benchmark import summarise, time_interleaved
from prunecli.exporting.timing.clocks import CLOCKS, PROCESSOR, WALL, Run, Watch, watched
from prunecli.exporting.timing.engines import Contestant, Setting, find_cpu


def test_processor_time_does_not_count_what_a_thread_waits_for():
    """A runner that sleeps takes all of the wall clock, and none of a processor."""
    runners = [Run(lambda: time.sleep(0.01), CLOCKS[kind]) for kind in (WALL, PROCESSOR)]
    walled, processed = time_interleaved(runners, runs=5, time_limit=0.3).min(axis=0)
    assert walled >= 0.01
    assert processed < 0.002


def test_processor_time_counts_what_a_thread_computes():
    numbers = list(range(200_000))
    runners = [Run(lambda: sum(numbers), CLOCKS[kind]) for kind in (WALL, PROCESSOR)]
    walled, processed = time_interleaved(runners, runs=20, time_limit=1).min(axis=0)
    assert processed == pytest.approx(walled, rel=0.5)


@pytest.mark.parametrize(("threads", "kind"), [(1, PROCESSOR), (2, WALL)])
def test_networks_are_timed_by_the_clock_that_the_report_names(tmp_path, threads, kind):
    import torch
    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.exporting.onnx.file import to_onnx

    spec = InputSpec(1, 8, 8, (0.0,), (1.0,))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)).eval()
    with torch.no_grad():
        to_onnx(model, tmp_path / "m.onnx", input=spec)
    setting = Setting(spec, 1, threads, 0)
    runner = find_cpu(()).prepare(Contestant(tmp_path / "m.onnx"), setting)
    assert runner.clock is CLOCKS[kind]
    times = time_interleaved([runner], runs=3, time_limit=0.1)
    assert summarise({"slim": times[:, 0]}, "cpu", "CPUExecutionProvider", setting).clock == kind


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="nothing tells what others do")
def test_what_other_programs_do_is_seen():
    loop = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", loop])
    try:
        time.sleep(0.2)
        with watched() as watch:
            time.sleep(1)
    finally:
        other.kill()
        other.wait()
    assert watch.others > 0.3
    assert watch.own < 0.2


def test_what_this_program_does_is_its_own():
    with watched() as watch:
        begin = time.thread_time()
        while time.thread_time() - begin < 0.2:
            pass
    assert 0 < watch.own <= 1.1


@pytest.mark.parametrize(
    ("watch", "threads", "said"),
    [
        (Watch(2, others=1.4, own=1.0), 1, "other programs kept 1.4 of 2 cores busy"),
        (Watch(8, others=1.4, own=1.0), 1, None),
        (Watch(8, others=5.0, own=4.0), 4, "other programs kept 5.0 of 8 cores busy"),
        (Watch(1, others=0.1, own=1.0), 1, None),
        (Watch(4, others=0.0, own=0.5), 1, "this program had its processor for 50% of the time"),
        (Watch(4, others=0.0, own=0.5), 2, None),  # threads wait for each other
    ],
)
def test_a_busy_machine_is_told(watch, threads, said):
    told = watch.warnings(threads=threads)
    assert len(told) == (0 if said is None else 1)
    if said is not None:
        assert said in told[0]
        assert "measure again on an idle machine" in told[0]
