"""The probe of this machine's runtime."""

from __future__ import annotations

from prunecli.cost.staircase import (
    CONV,
    DEPTHWISE,
    KINDS,
    MEASURED,
    instructions,
    known_staircase,
)
from prunecli.exporting.timing import staircase


def test_the_probe_finds_steps_and_is_used_from_then_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(staircase, "ROUNDS", 4)
    found = staircase.learn_staircase()
    assert known_staircase().to_json() == found.to_json()
    assert set(found.worth) == set(KINDS)
    for kind in KINDS:
        assert len(found.worth[kind]) == MEASURED + 1
        assert found.worth[kind][-1] == MEASURED
    if instructions() == "avx512":  # a width that no kernel likes takes longer than a wider one
        assert found.worth[DEPTHWISE][30] > 1.5 * found.worth[DEPTHWISE][32]
        assert found.worth[CONV][36] > 1.2 * found.worth[CONV][32]
