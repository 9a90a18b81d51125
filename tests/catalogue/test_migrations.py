"""Steps of the catalogue's format: files out there have taken them, so they stay as they are."""

from __future__ import annotations

import hashlib

from edge.catalogue.migrations import MIGRATIONS

# A new step adds a line here.  A line that has to be changed means that files made before would
# differ from new ones without anybody noticing: add a step instead.
TAKEN = [
    "f69f1bc7cf804390",
    "70d9304f4ec799cb",
]


def test_steps_that_files_have_taken_are_never_changed() -> None:
    assert [hashlib.sha256(step.encode()).hexdigest()[:16] for step in MIGRATIONS] == TAKEN
