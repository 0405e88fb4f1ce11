"""Timing caches are kept from build to build, for each device and version; where they cannot be, builds go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_resnet.engines.engine import CompiledEngine, Progress
from edge_resnet.engines.options import DEFAULTS, BuildOptions
from edge_resnet.engines.ort import OrtEngine
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.timing_cache import compile_engine

NANO, AGX = target_named("jetson-orin-nano"), target_named("jetson-agx-orin")


class Measuring(OrtEngine):
    """Compiles nothing, and measures one thing more each time."""

    seen: list[bytes | None]

    @classmethod
    def available_options(cls) -> frozenset[str]:
        return frozenset({"timing_cache"})

    @classmethod
    def timing_cache_name(cls, target: Target) -> str | None:
        return f"measuring-1.0-{target.name}"

    @classmethod
    def _compile(cls, model: bytes, target: Target, options: BuildOptions, progress: Progress) -> CompiledEngine:
        cls.seen.append(options.timing_cache)
        return CompiledEngine("measuring", model, (), {}, timing_cache=(options.timing_cache or b"") + b"x")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Measuring.seen = []
    monkeypatch.delenv("EDGE_RESNET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-resnet"


def test_the_next_build_begins_with_what_was_measured(cache: Path) -> None:
    for target in (NANO, NANO, AGX, NANO):
        compile_engine(Measuring, b"", target, DEFAULTS)
    assert Measuring.seen == [b"", b"x", b"", b"xx"]
    assert (cache / "timings" / "measuring-1.0-jetson-orin-nano.timing").read_bytes() == b"xxx"
    assert len(os.listdir(cache / "timings")) == 2


def test_what_others_can_have_written_is_not_given_to_a_compiler(cache: Path) -> None:
    compile_engine(Measuring, b"", NANO, DEFAULTS)
    (cache / "timings").chmod(0o777)
    compile_engine(Measuring, b"", NANO, DEFAULTS)
    assert Measuring.seen == [b"", b""]


def test_a_place_that_cannot_be_written_is_no_failure(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_bytes(b"a file where the folder should be")
    assert compile_engine(Measuring, b"model", NANO, DEFAULTS).data == b"model"
    assert Measuring.seen == [b""]


def test_a_relative_place_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    compile_engine(Measuring, b"", NANO, DEFAULTS)
    assert (
        tmp_path / "home" / ".cache" / "edge-resnet" / "timings" / "measuring-1.0-jetson-orin-nano.timing"
    ).is_file()


def test_a_user_without_a_home_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert compile_engine(Measuring, b"model", NANO, DEFAULTS).data == b"model"
    assert Measuring.seen == [None]


def test_a_place_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RESNET_CACHE", str(tmp_path / "own"))
    compile_engine(Measuring, b"", NANO, DEFAULTS)
    assert (tmp_path / "own" / "timings" / "measuring-1.0-jetson-orin-nano.timing").is_file()


def test_an_engine_kind_that_measures_nothing_is_given_nothing(cache: Path) -> None:
    class Plain(Measuring):
        @classmethod
        def timing_cache_name(cls, target: Target) -> str | None:
            return None

    compile_engine(Plain, b"", NANO, DEFAULTS)
    assert Plain.seen == [None] and not cache.exists()
