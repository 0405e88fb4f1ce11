"""``cache``, and what ``build`` says of stages that it did not make again."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
RecipeFile = Callable[..., Path]
KEPT = ["calibrate", "quantize for cpu", "quantize for tensorrt"]


def test_stages_are_kept_listed_and_cleared(
    recipe_file: RecipeFile, cli: Cli, cli_json: CliJson, own_cache: Path, tmp_path: Path
) -> None:
    recipe = recipe_file(build='output = "out.edge"')
    nothing = {"folder": str(own_cache / "stages"), "bytes": 0, "removed": 0, "freed_bytes": 0, "entries": []}
    assert cli_json("cache") == nothing
    assert not any(stage["cached"] for stage in cli_json("build", recipe, "--no-cache")["stages"])
    assert cli_json("cache") == nothing and not own_cache.exists()

    cli_json("build", recipe)
    bundle = (tmp_path / "out.edge").read_bytes()
    listed = cli_json("cache")
    assert sorted(each["stage"] for each in listed["entries"]) == KEPT
    assert {each["made_for"] for each in listed["entries"]} == {"out.edge"}
    sizes = [path.stat().st_size for path in (own_cache / "stages").iterdir()]
    assert sorted(each["bytes"] for each in listed["entries"]) == sorted(sizes) and listed["bytes"] == sum(sizes)

    again = cli("build", recipe)
    assert "made by an earlier build: calibrate, quantize for cpu, quantize for tensorrt; --no-cache" in again.stdout
    assert (tmp_path / "out.edge").read_bytes() == bundle
    shown = cli("cache").stdout
    assert all(stage in shown for stage in KEPT) and " s ago" in shown

    cleared = cli_json("cache", "--clear")
    assert (cleared["removed"], cleared["freed_bytes"], cleared["entries"]) == (3, sum(sizes), [])
    assert cli("cache", "--clear").stdout.startswith("removed 0 files, 0.0 MB, from ")


def test_a_cache_that_cannot_be_written_costs_a_note_and_no_bundle(
    recipe_file: RecipeFile, cli_json: CliJson, own_cache: Path
) -> None:
    own_cache.write_bytes(b"a file where the folder should be")
    document = cli_json("build", recipe_file(build='output = "out.edge"'))
    (note,) = document["notes"]
    assert note.startswith("finished stages are not kept (") and document["bundle"].endswith("out.edge")
