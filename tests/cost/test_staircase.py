"""Staircases: what a width costs, where it was measured and where it was not."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from prunecli.cost import staircase
from prunecli.cost.staircase import (
    CONV,
    DEPTHWISE,
    ELEMENT,
    KINDS,
    MEASURED,
    blocked,
    known_staircase,
    own_file,
    parse_staircase,
    shipped,
)


def test_a_begun_block_costs_a_whole_one_and_a_width_off_multiples_of_4_more():
    worth = blocked(16, name="blocks").channels(CONV, 300)
    assert [worth[width] for width in (0, 4, 16, 20, 32, 36)] == [0, 16, 16, 32, 32, 48]
    assert worth[18] > worth[20]


def test_steps_go_on_beyond_what_was_measured():
    worth = blocked(16, name="blocks").channels(CONV, 2000)
    widths = np.arange(4, 2000, 4)
    assert np.array_equal(worth[widths], np.ceil(widths / 16) * 16)


def test_elements_cost_what_they_are():
    assert blocked(8, name="blocks").channels(ELEMENT, 5).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", [CONV, DEPTHWISE])
def test_the_shipped_staircase_has_steps_of_16_channels(kind):
    """ONNX Runtime's blocked kernels hold 16 channels in a register of 512 bits."""
    worth = shipped("avx512").channels(kind, 256)
    for block in range(32, 257, 16):
        inside = worth[[block - 12, block - 8, block - 4]]
        assert np.allclose(inside, worth[block], rtol=0.12)
        assert worth[block] > worth[block - 16] + 10


def test_a_staircase_survives_its_file_and_another_content_is_refused():
    found = blocked(8, name="blocks")
    data = json.loads(json.dumps(found.to_json()))
    assert parse_staircase(data) == dataclasses.replace(
        found, worth={kind: tuple(found.worth[kind]) for kind in KINDS}
    )
    for broken in ({}, {**data, "worth": {}}, {**data, "nanoseconds": {"conv": -1}}, [], 3):
        with pytest.raises(ValueError, match="staircase"):
            parse_staircase(broken)


def test_what_was_measured_here_comes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(staircase, "instructions", lambda: "neon")
    assert known_staircase() == blocked(4, name="neon")
    own = blocked(MEASURED, name="here")
    own_file().parent.mkdir(parents=True)
    own_file().write_text("no JSON", encoding="utf-8")
    assert known_staircase() == blocked(4, name="neon")
    own_file().write_text(json.dumps(own.to_json()), encoding="utf-8")
    assert known_staircase() == own


def test_a_staircase_of_more_threads_is_kept_apart_from_that_of_one(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert own_file(4) != own_file() == own_file(1)
    own_file(4).parent.mkdir(parents=True)
    own_file(4).write_text(json.dumps(blocked(2, name="four").to_json()), encoding="utf-8")
    assert known_staircase() == shipped(staircase.instructions())
