"""What several tests of architectures need."""

import pytest

from prunecli.architectures.architecture import Architecture
from prunecli.architectures.lookup import fingerprint_of
from prunecli.architectures.registry import ARCHITECTURES


@pytest.fixture
def extra_architecture():
    """Register an architecture for one test."""
    added = []

    def add(name: str, architecture: Architecture) -> None:
        ARCHITECTURES.add(name, architecture, summary="For a test.")
        added.append(name)

    yield add
    for name in added:
        del ARCHITECTURES._entries[name]
    fingerprint_of.cache_clear()
