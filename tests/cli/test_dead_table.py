"""The table of dead channels: which channels, in few letters."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunecli.report import DeadGroup, DeadReport
from prunecli_cli.table_parts import dead_parts


def shown(*, constant: tuple[int, ...], unread: tuple[int, ...] = (), rows: int | None) -> str:
    group = DeadGroup("stem", 64, constant, unread, (), {}, 0.1)
    dead = DeadReport((group,), 64, len(constant) + len(unread), {})
    console = Console(width=120, file=io.StringIO(), highlight=False)
    for part in dead_parts(dead, rows):
        console.print(part)
    return next(line for line in console.file.getvalue().splitlines() if "stem" in line).split()[-1]


@pytest.mark.parametrize(
    ("constant", "unread", "expected"),
    [
        ((0, 1, 2, 3, 7), (), "0-3,7"),
        ((5,), (), "5"),
        ((5, 6), (), "5-6"),
        ((1, 3, 5), (), "1,3,5"),
        ((0, 2, 9), (1, 10, 12), "0-2,9-10,12"),
        (tuple(range(64)), (), "0-63"),
    ],
)
@pytest.mark.parametrize("rows", [None, 5])
def test_dead_channels_that_follow_each_other_are_written_as_a_range(
    constant: tuple[int, ...], unread: tuple[int, ...], expected: str, rows: int | None
) -> None:
    assert shown(constant=constant, unread=unread, rows=rows) == expected


def test_more_than_six_ranges_are_cut_short_unless_all_rows_are_asked_for() -> None:
    constant = tuple(at for at in range(24) if at % 3)
    assert shown(constant=constant, rows=5) == "1-2,4-5,7-8,10-11,13-14,16-17,..."
    assert shown(constant=constant, rows=None) == ("1-2,4-5,7-8,10-11,13-14,16-17,19-20,22-23")
