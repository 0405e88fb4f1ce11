"""A slice of fuzzing: the parsers of bundles, images, networks and checkpoints. ``make fuzz`` is the long run."""

from __future__ import annotations

import pytest
from fuzz_parsers import BINARY
from fuzz_slice import fuzz
from fuzz_watch import Watch


@pytest.mark.slow
def test_binary_parsers_keep_their_promises(watch: Watch) -> None:
    fuzz(BINARY, watch)
