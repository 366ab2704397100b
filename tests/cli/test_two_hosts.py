"""Training on two hosts: two network namespaces with a cable between, and no folder in common."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.samples import VGG
from tests.support.two_processes import begin, end, member, wait_for_epoch

if TYPE_CHECKING:
    from pathlib import Path

ADDRESSES = ("10.213.77.1", "10.213.77.2")
WAIT = 12


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Hosts:
    """Two namespaces, the interface of each, and a folder of its own for each."""

    names: tuple[str, str]
    folders: tuple[Path, Path]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def cable(self, state: str) -> None:
        ip("-n", self.names[0], "link", "set", "cable0", state)

    def start(self, *words: object) -> list[subprocess.Popen[str]]:
        first = len(self.started)
        for rank, (name, folder) in enumerate(zip(self.names, self.folders, strict=True)):
            said = member(rank, 2, port=29477, address=ADDRESSES[0]) | {
                "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "PRUNECLI_WAIT_SECONDS": str(WAIT),
                "GLOO_SOCKET_IFNAME": f"cable{rank}",
            }  # fmt: skip
            before = ("ip", "netns", "exec", name)
            self.started.append(begin(words, folder, said, before=before))
        return self.started[first:]


@pytest.fixture
def hosts(tmp_path):
    names = (f"prunecli-a-{os.getpid()}", f"prunecli-b-{os.getpid()}")
    folders = (tmp_path / "a", tmp_path / "b")
    made = []
    try:
        for name, folder in zip(names, folders, strict=True):
            folder.mkdir()
            ip("netns", "add", name)
            made.append(name)
        ip("-n", names[0], "link", "add", "cable0", "type", "veth", "peer", "cable1",
           "netns", names[1])  # fmt: skip
        for rank, name in enumerate(names):
            ip("-n", name, "addr", "add", f"{ADDRESSES[rank]}/24", "dev", f"cable{rank}")
            for device in ("lo", f"cable{rank}"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        for name in made:
            ip("netns", "delete", name)
        pytest.skip(f"network namespaces cannot be made here: {said.strip()}")
    found = Hosts(names, folders)
    yield found
    for process in found.started:
        process.kill()
        process.communicate()
    for name in names:
        ip("netns", "delete", name)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ip") is None, reason="there is no ip command")
def test_two_hosts_train_lose_each_other_and_go_on(hosts):
    words = (
        "finetune", VGG, "--data", "digits", "--limit", "320", "--batch-size", "16",
        "--amp", "no", "--epochs", "25", "--teacher", "none", "-o", "t.pt",
    )  # fmt: skip
    log = hosts.folders[0] / "t.run" / "log.jsonl"
    processes = hosts.start(*words)
    wait_for_epoch(log, 2, *processes)
    hosts.cable("down")
    cut = time.monotonic()
    for code, out, err in map(end, processes):
        assert (code, out) == (6, "")
        assert err.count("LOST_PROCESS") == 1  # neither can hear that the other says so
    assert time.monotonic() - cut < 4 * WAIT
    done = len(log.read_text().splitlines())
    assert [path.name for path in hosts.folders[1].iterdir()] == []

    hosts.cable("up")
    first, second = (end(process) for process in hosts.start(*words, "--resume"))
    assert first[:2] == (0, "t.pt\n")
    assert second == (0, "", "")
    epochs = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["epoch"] for each in epochs] == list(range(1, 26))
    assert done < 25
    assert [path.name for path in hosts.folders[1].iterdir()] == []
