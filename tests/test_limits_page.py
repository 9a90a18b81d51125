"""docs/behavior/limits.md names every limit, every outcome and what a client is answered."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edge.dispatch import pages
from edge.model.documented import documented
from edge.model.limits import Limits
from edge.outcome import Ending
from edge.telemetry.layout import SoftLimit

PAGE: Final = (Path(__file__).parents[1] / "docs" / "behavior" / "limits.md").read_text()
ROWS: Final = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*)\|", PAGE, re.MULTILINE)


def test_every_setting_of_a_sandbox_has_its_row() -> None:
    named = set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert named == {item.name for item in documented(Limits)}


def test_every_outcome_has_its_row_in_order() -> None:
    assert [word for word, _, _ in ROWS] == [ending.value for ending in Ending]


def test_statuses_are_those_of_the_pages() -> None:
    told = {word: (status.strip(), retry.strip()) for word, status, retry in ROWS}
    for ending, (status, _, retry_after) in pages._PAGES.items():
        assert told[ending.value] == (str(status), str(retry_after or "")), ending


def test_every_label_of_a_refused_act_is_named() -> None:
    assert {limit.label for limit in SoftLimit} <= set(re.findall(r"`(\w+)`", PAGE))
