"""Fixtures for the tests of the command line."""

from __future__ import annotations

import sys

import pytest

import prunecli
from tests.support.fake_verbs import READ, FakeVerbs


@pytest.fixture
def verbs(monkeypatch, tmp_path):
    fake = FakeVerbs()
    for name in READ:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")
    for name in ("d", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.setitem(sys.modules, "prunecli.verbs", fake)
    monkeypatch.setattr(prunecli, "verbs", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return fake
