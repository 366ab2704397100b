"""Reports as JSON data."""

from __future__ import annotations

import json
import math

from prunecli.report import finite


def test_a_loss_that_is_no_number_is_null_in_json() -> None:
    found = finite({"loss": [math.nan, math.inf, -math.inf, 1.0], "rows": {"a": (1,), "b": "nan"}})
    assert found == {"loss": [None, None, None, 1.0], "rows": {"a": (1,), "b": "nan"}}
    assert json.dumps(found, allow_nan=False)
