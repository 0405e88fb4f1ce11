"""What fuzzing has found stays mended; and hypothesis, which shrinks what it finds, over every parser."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fuzz_watch
import pytest
from fuzz_parsers import PARSERS
from fuzz_watch import Finding, Watch, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).with_name("corpus")
CASES = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", CASES, ids=[f"{path.parent.name}-{path.name}" for path in CASES])
def test_what_was_found_stays_mended(path: Path, watch: Watch) -> None:
    watch.check(PARSERS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", PARSERS)
def test_valid_files_are_taken(name: str, watch: Watch) -> None:
    parser, refused = PARSERS[name], watch.refused
    for seed in parser.seeds():
        watch.check(parser, seed)
    assert watch.refused == refused, "fuzzing must begin from what a parser takes"


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_nearly_valid_files(name: str, watch: Watch, rng: random.Random) -> None:
    watch.check(PARSERS[name], mutated(PARSERS[name], rng))


def write_beside(path: Path) -> None:
    path.with_name("other").write_bytes(b"")


def keep_memory(path: Path) -> None:
    KEPT.append(b"x" * 50_000_000)


KEPT: list[bytes] = []
"""So that it is still there when memory is looked at: here that is Python's own, for a process that has run other tests has
had more already than this takes."""


def make_a_folder(path: Path) -> None:
    (path.parent.parent / "elsewhere").mkdir()


@pytest.mark.parametrize(
    ("parse", "what"),
    [
        (lambda path: [][0], "IndexError: list index out of range"),
        (lambda path: sum(range(10**7)), "[0-9.]+ s;"),
        (keep_memory, "MB for 1 bytes"),
        (write_beside, "open for writing"),
        (make_a_folder, "os.mkdir"),
        (lambda path: pickle.loads(b"cos\ngetcwd\n."), "pickle.find_class"),
    ],
)
def test_the_watch_sees_what_it_watches_for(
    parse: Callable[[Path], object], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_watch, "SECONDS", 0.05)
    monkeypatch.setattr(fuzz_watch, "MEMORY", 1_000_000)
    monkeypatch.setattr(fuzz_watch, "_peak", lambda: tracemalloc.get_traced_memory()[0])
    tracemalloc.start()
    watch, parser = Watch(tmp_path / "in"), replace(PARSERS["labels"], seeds=lambda: (), parse=parse)
    try:
        with pytest.raises(Finding, match=what):
            watch.check(parser, b"x")
    finally:
        tracemalloc.stop()
