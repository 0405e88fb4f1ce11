"""Fuzzing for so many seconds: what the tests do."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence

from fuzz_parsers import Parser
from fuzz_watch import Watch, mutated

SECONDS = float(os.environ.get("EDGE_RESNET_FUZZ_SECONDS", "30"))
"""Of each half, text and binary, which two workers of the tests share: a minute in all."""


def fuzz(parsers: Sequence[Parser], watch: Watch) -> None:
    """Goes over the parsers, each for its share of ``SECONDS``, with inputs that no run before has seen.

    Raises:
        Finding: an input broke a promise; it says which, and where the input is.
    """
    seed = int(os.environ.get("EDGE_RESNET_FUZZ_SEED") or time.time_ns() // 1_000_000)
    rng, all_weights = random.Random(seed), sum(parser.weight for parser in parsers)
    for parser in parsers:
        end = time.monotonic() + SECONDS * parser.weight / all_weights
        while time.monotonic() < end:
            watch.check(parser, mutated(parser, rng))
    assert watch.inputs > 10 * SECONDS, f"{watch.inputs} inputs in {SECONDS:.0f} s: is something slow?"
