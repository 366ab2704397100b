"""Fixtures for the tests of the command line."""

from __future__ import annotations

import sys

import pytest

import prunecli
from tests.support.fake_verbs import FakeVerbs


@pytest.fixture
def verbs(monkeypatch, tmp_path):
    fake = FakeVerbs()
    monkeypatch.setitem(sys.modules, "prunecli.verbs", fake)
    monkeypatch.setattr(prunecli, "verbs", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return fake
