"""Builds that are killed, run out of space or may not write leave the old bundle or the new one, never another thing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KILLED = Path(__file__).parents[1] / "support" / "killed_builds.py"
FEW = 16
MANY = 200


def kill(recipe: Path, folder: Path, kills: int) -> dict[str, int]:
    folder.mkdir()
    command = [sys.executable, KILLED, recipe, folder, str(kills), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=kills * 30)
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = json.loads(done.stdout)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_a_killed_build_leaves_the_old_bundle_or_the_new_one(
    kills: int, recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    counted = kill(recipe_file(), tmp_path / "out", kills)
    assert counted["killed"] == kills and counted["steps"] > 50, "each step of writing was to be met"
    assert counted["old"] > kills // 4, "most kills come before the bundle's name is taken"
    assert counted["kept"] >= 1


FULL = """
import os, subprocess, sys
from dataclasses import replace
from pathlib import Path
from edge_resnet.chain import build
from edge_resnet.errors import OutputError
from edge_resnet.progress import Progress
from edge_resnet.recipe import load_recipe
from edge_resnet.stage_cache import NO_CACHE, StageCache

class Notes(Progress):
    def note(self, text):
        print("note:", text.replace(sys.argv[2], "DISK"))

recipe, disk, plain = load_recipe(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
at = lambda path: replace(recipe, build=replace(recipe.build, output=path))
cached = lambda result: [stage.name for stage in result.stages if stage.cached]
build(at(plain), cache=NO_CACHE)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=700", "tmpfs", str(disk)], check=True)

here = plain.with_name("here") / plain.name
here.parent.mkdir()
build(at(here), Notes(), StageCache(disk / "stages"))
print("full cache:", here.read_bytes() == plain.read_bytes(), sorted(len(p.name) for p in (disk / "stages").iterdir()))

old, kept = disk / plain.name, StageCache(plain.with_name("kept"))
old.write_bytes(b"old")
def attempt():
    try:
        return build(at(old), Notes(), kept)
    except OutputError as error:
        print("refused:", str(error).replace(str(disk), "DISK"), old.read_bytes(), sorted(os.listdir(disk)))
attempt()
subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
print("more space:", cached(attempt()), old.read_bytes() == plain.read_bytes())

subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
before = old.read_bytes()
try:
    build(at(old), cache=NO_CACHE)
except OutputError as error:
    print("read-only target:", str(error).replace(str(disk), "DISK"), old.read_bytes() == before)
again = build(at(here), Notes(), StageCache(disk / "stages"))
print("read-only cache:", cached(again), here.read_bytes() == plain.read_bytes())
"""


def can_mount() -> bool:
    try:
        probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="this host lets nobody mount a file system in a namespace")
def test_full_and_read_only_disks_of_the_cache_and_of_the_bundle(
    recipe_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The disk holds the ranges and nothing larger: the build goes on without a cache, but not without its bundle."""
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL]
    command = [*namespace, recipe_file(), disk, tmp_path / "model.edge"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    no_space = "no space left on the device: free some, or choose another place"
    note, full, refused, more, target, cache_note, cache = done.stdout.splitlines()
    assert note.startswith("note: finished stages are not kept (cannot write 'DISK/stages/") and no_space in note
    assert full == "full cache: True [70]", "the ranges alone fit, and nothing half stays"
    assert refused == f"refused: cannot write 'DISK/model.edge': {no_space} b'old' ['model.edge', 'stages']"
    assert more == "more space: ['calibrate', 'quantize for cpu', 'quantize for tensorrt'] True"
    read_only = "cannot write 'DISK/model.edge': the file system is read-only: choose another place"
    assert target == f"read-only target: {read_only} True"
    assert cache_note.startswith("note: finished stages are not kept (") and "read-only" in cache_note
    assert cache == "read-only cache: ['calibrate'] True", "what was kept before is still found"
