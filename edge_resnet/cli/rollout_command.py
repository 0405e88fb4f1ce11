"""``edge-resnet rollout``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, print_table, say
from edge_resnet.cli._trust import given_keys


def run(
    inventory: Annotated[
        Path, typer.Argument(metavar="FLEET.toml", help="Registry, models and devices (docs/fleet.md).")
    ],
    fraction: Annotated[
        float | None,
        typer.Option("--canary", metavar="SHARE", min=0, max=1, help="Of devices, in the inventory's place."),
    ] = None,
    registry: Annotated[str | None, typer.Option(metavar="REGISTRY", help="In the inventory's place.")] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust",
            parser=given_keys,
            metavar="KEYS",
            help="Whom the devices trust, in the inventory's place: where they have the keys.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Prints which bundle each device should have: the stable one, or the canary for a share of them. Changes nothing.

    A larger share only adds devices, and every run names the same ones.

    Example: `edge-resnet rollout fleet.toml --canary 0.1`
    """
    from edge_resnet.registry import open_registry
    from edge_resnet.rollout import assign, load_fleet

    fleet = load_fleet(inventory)
    if fraction is not None:
        fleet = fleet.with_fraction(fraction)
    if registry is not None:
        fleet = replace(fleet, registry=registry)
    if trust is not None:
        fleet = replace(fleet, trust=str(trust))
    found = assign(fleet, open_registry(fleet.registry))
    if json:
        print_json([each.to_json() for each in found])
        return
    rows = [(each.device, each.target, each.bundle, each.digest[:16], each.why) for each in found]
    print_table(None, ("device", "target", "bundle", "digest", "why"), rows)
    counts = Counter(each.bundle for each in found)
    say(", ".join(f"{bundle}: {count}" for bundle, count in sorted(counts.items())))
