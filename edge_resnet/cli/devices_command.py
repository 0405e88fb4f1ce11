"""``edge-resnet devices``."""

from __future__ import annotations

from edge_resnet.cli._console import JsonFlag, print_json, print_table
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import all_targets


def run(json: JsonFlag = False) -> None:
    """Lists the targets, and which of them this machine can compile for and run.

    Example: `edge-resnet devices`
    """
    rows = []
    for target in all_targets().values():
        engine = engine_class(target.kind)
        not_compile, not_run = engine.why_not_compile(target), engine.why_not_run(target)
        reasons = [why for why in (not_compile, not_run) if why]
        why_not = "; ".join(
            why for why in dict.fromkeys(reasons) if not any(why in other for other in reasons if other != why)
        )
        rows.append(
            {
                "target": target.name,
                "kind": target.kind,
                "can_compile": not_compile is None,
                "can_run": not_run is None,
                "why_not": why_not or None,
                "precisions": list(target.precisions),
                "description": target.description,
            }
        )
    if json:
        print_json(rows)
        return
    print_table(
        None,
        ("target", "engine", "precisions", "compile", "run", "why not"),
        [
            (
                row["target"],
                row["kind"],
                " ".join(str(p) for p in row["precisions"]),  # type: ignore[attr-defined]
                "yes" if row["can_compile"] else "no",
                "yes" if row["can_run"] else "no",
                row["why_not"],
            )
            for row in rows
        ],
    )
