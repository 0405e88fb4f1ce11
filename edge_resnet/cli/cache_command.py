"""``edge-resnet cache``."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, print_table, say
from edge_resnet.stage_cache import users_cache


def run(
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove them all; the next build takes as long as the first.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Lists the finished stages of builds, which the next build of the same inputs takes up; or removes them.

    They are in `stages` of `$EDGE_RESNET_CACHE`, by default of `~/.cache/edge-resnet`, 4 GB at most: what was used longest
    ago goes first. TensorRT's timings, which lie beside them, are left alone.

    Example: `edge-resnet cache --clear`
    """
    cache = users_cache()
    folder = None if cache.folder is None else str(cache.folder)
    removed, freed = cache.clear() if clear else (0, 0)
    entries = cache.entries()
    if json:
        document = {
            "folder": folder,
            "bytes": sum(each.bytes for each in entries),
            "removed": removed,
            "freed_bytes": freed,
        }
        print_json({**document, "entries": [each.to_json() for each in entries]})
        return
    if clear:
        say(f"removed {removed} files, {freed / 1e6:.1f} MB, from {folder}")
        return
    rows = [(each.stage, each.made_for, round(each.bytes / 1e6, 2), _ago(each.age_s)) for each in entries]
    print_table(f"Finished stages in {folder}", ("stage", "made for", "MB", "last used"), rows)


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
