"""Finished stages are kept by content: found again when nothing changed, never when anything did, and never half."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet import stage_cache
from edge_resnet.errors import OutputError
from edge_resnet.sealed_zip import seal
from edge_resnet.stage_cache import NO_CACHE, StageCache, Work, users_cache

WORK = Work("quantize for cpu", "model.edge", {"model": "ab", "images": ["cd"], "effort": "best"})
MADE = {"model.onnx": b"\x00network", "layers.json": b"{}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "stages"


def numbered(number: int) -> Work:
    return replace(WORK, inputs={"number": number})


def test_what_is_kept_is_found_by_the_same_work_alone(folder: Path) -> None:
    cache = StageCache(folder)
    assert cache.get(WORK) is None
    assert cache.keep(WORK, MADE) is None
    assert StageCache(folder).get(WORK) == MADE
    assert cache.get(replace(WORK, made_for="other.edge")) == MADE
    for other in (
        replace(WORK, stage="calibrate"),
        *(replace(WORK, inputs={**WORK.inputs, k: 1}) for k in WORK.inputs),
    ):
        assert cache.get(other) is None


def test_the_key_is_of_the_code_the_libraries_and_the_processor_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {WORK.key}
    for name, changed in (
        ("_sources", lambda: "edited"),
        ("_version", lambda library: "99" if library == "torch" else "1"),
        ("cpu_name", lambda: "another processor"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(stage_cache, name, changed)
            stage_cache._made_by.cache_clear()
            before.add(WORK.key)
    stage_cache._made_by.cache_clear()
    assert len(before) == 4 and WORK.key in before


def test_an_edit_of_the_calibration_changes_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "edge_resnet"
    for name in ("chain.py", "calibration/bias.py", "engines/ort.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("one")
    monkeypatch.setattr(stage_cache, "__file__", str(home / "stage_cache.py"))
    found = [stage_cache._sources()]
    for name in ("chain.py", "calibration/bias.py", "engines/ort.py"):
        (home / name).write_text("two")
        found.append(stage_cache._sources())
    assert len(set(found)) == 4 and stage_cache._sources() == found[-1]


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_every_damage_is_found(folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    path = only_file(folder)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert cache.get(WORK) is None and cache.entries() == []
        path.write_bytes(whole[:position])
        assert cache.get(WORK) is None
    path.write_bytes(whole)
    assert cache.get(WORK) == MADE
    path.write_bytes(b"damaged")
    assert cache.keep(WORK, MADE) is None and path.read_bytes() == whole


def test_an_entry_under_another_name_is_not_taken(folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(numbered(1), MADE)
    only_file(folder).rename(folder / f"{numbered(2).key}.stage")
    assert cache.get(numbered(2)) is None


@pytest.mark.parametrize("about", [b"{}", b"[]", b"not JSON", b"[" * 10_000, b'{"key": 3}'])
def test_an_entry_of_another_version_is_listed_but_not_taken(about: bytes, folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    only_file(folder).write_bytes(b"".join(seal({"about.json": about, **MADE})))
    assert cache.get(WORK) is None
    (listed,) = cache.entries()
    assert (listed.stage, listed.made_for) == ("", "") and cache.clear() == (1, listed.bytes)


def test_what_was_used_longest_ago_goes_first(folder: Path) -> None:
    StageCache(folder).keep(numbered(0), MADE)
    size = only_file(folder).stat().st_size
    cache = StageCache(folder, largest=3 * size)
    for number in range(1, 3):
        cache.keep(numbered(number), MADE)
    for number, age in ((0, 50), (1, 200), (2, 100)):
        os.utime(folder / f"{numbered(number).key}.stage", (time.time() - age,) * 2)
    assert cache.get(numbered(1)) == MADE  # now the latest used
    cache.keep(numbered(3), MADE)
    assert [cache.get(numbered(number)) is not None for number in range(4)] == [True, True, False, True]


def test_what_a_killed_build_left_goes_after_an_hour(folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    old, new = (folder / f".edge-resnet-{digit * 16}.partial" for digit in "0f")
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 3700,) * 2)
    cache.keep(numbered(1), MADE)
    assert not old.exists() and new.exists()


def test_the_list_says_what_for_how_large_and_how_old(folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(numbered(1), MADE)
    os.utime(only_file(folder), (time.time() - 1000,) * 2)
    cache.keep(replace(WORK, stage="calibrate"), MADE)
    first, second = cache.entries()
    assert (first.stage, second.stage, second.made_for) == ("calibrate", WORK.stage, "model.edge")
    assert second.bytes == Path(second.path).stat().st_size
    assert first.age_s < 60 and second.age_s == pytest.approx(1000, abs=60)


def test_clearing_removes_our_own_files_alone(folder: Path, tmp_path: Path) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    outside = tmp_path / "outside"
    outside.write_bytes(b"not ours")
    (folder / f"{'0' * 64}.stage").symlink_to(outside)
    (folder / f"{'1' * 64}.stage").mkdir()
    others = ["notes.stage", "model.edge", f"{'2' * 64}.stage.txt", ".edge-resnet-mine.partial"]
    for name in others:
        (folder / name).write_bytes(b"not ours")
    (folder / ".edge-resnet-0123456789abcdef.partial").write_bytes(b"12345")
    size = (folder / f"{WORK.key}.stage").stat().st_size
    assert cache.clear() == (2, size + 5)
    assert sorted(os.listdir(folder)) == sorted([*others, f"{'0' * 64}.stage", f"{'1' * 64}.stage"])
    assert outside.read_bytes() == b"not ours" and cache.clear() == (0, 0)


def test_a_folder_is_made_for_its_user_alone(folder: Path) -> None:
    StageCache(folder).keep(WORK, MADE)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_place_that_others_may_write_to_is_not_used(mode: int, folder: Path) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    folder.chmod(mode)
    assert cache.get(WORK) is None
    reason = cache.keep(WORK, MADE)
    assert reason is not None and "others may write to it" in reason and "chmod it to 700" in reason


def test_a_place_that_is_another_users_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert cache.get(WORK) is None and "is another user's" in str(cache.keep(WORK, MADE))


def test_an_entry_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was put there while all could write; then the folder was changed to 700, as the line above advises."""
    cache = StageCache(folder)
    cache.keep(WORK, MADE)
    (entry,) = folder.iterdir()
    status = os.fstat

    def of_another(descriptor: int) -> os.stat_result:
        found = status(descriptor)
        return os.stat_result((*found[:4], found.st_uid + 1, *found[5:])) if stat.S_ISREG(found.st_mode) else found

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", of_another)
        assert cache.get(WORK) is None and cache.entries() == []
    assert cache.get(WORK) == MADE
    elsewhere = folder.parent / "elsewhere"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    assert cache.get(WORK) is None, "nor is a link followed"


def test_a_folder_that_is_exchanged_while_it_is_read_makes_no_difference(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may rename the folder puts their own there between the look at its owner and the reading."""
    StageCache(folder).keep(WORK, MADE)
    other = tmp_path / "other"
    StageCache(other).keep(WORK, {"model.onnx": b"another"})
    opened, calls = os.open, []

    def exchanged(path: str | Path, *arguments: int, **named: int) -> int:
        descriptor = opened(path, *arguments, **named)
        if not calls:
            folder.rename(tmp_path / "away")
            other.rename(folder)
        calls.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", exchanged)
    assert StageCache(folder).get(WORK) == MADE and len(calls) > 1


def test_a_place_that_cannot_be_written_costs_a_line(folder: Path) -> None:
    folder.parent.parent.joinpath("cache").write_bytes(b"a file where the folder should be")
    reason = StageCache(folder).keep(WORK, MADE)
    assert reason is not None and "\n" not in reason
    assert reason.startswith("finished stages are not kept (") and reason.endswith("with EDGE_RESNET_CACHE")
    assert StageCache(folder).get(WORK) is None and StageCache(folder).entries() == []


def test_clearing_what_cannot_be_removed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = StageCache(folder)
    cache.keep(WORK, MADE)

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(OutputError, match="cannot remove '.*': Read-only file system: change its permissions"):
        cache.clear()


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert NO_CACHE.keep(WORK, MADE) is None and NO_CACHE.get(WORK) is None
    assert NO_CACHE.entries() == [] and NO_CACHE.clear() == (0, 0)
    monkeypatch.setenv("EDGE_RESNET_CACHE", str(tmp_path))
    assert users_cache().folder == tmp_path / "stages"
