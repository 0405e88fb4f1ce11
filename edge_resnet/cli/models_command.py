"""``edge-resnet models``."""

from __future__ import annotations

from edge_resnet.cli._console import JsonFlag, print_json, print_table


def run(json: JsonFlag = False) -> None:
    """Lists the architectures with their parameters and multiply-adds (GMAC, at their published size and classes).

    Example: `edge-resnet models --json`
    """
    from edge_resnet.models import ARCHITECTURES, measure

    rows = [measure(architecture) for architecture in ARCHITECTURES.values()]
    if json:
        print_json([{"name": row.name, "parameters": row.parameters, "gmac": row.gmac} for row in rows])
        return
    table = [(row.name, f"{row.parameters:,}", f"{row.gmac:.3f}", f"{row.size}×{row.size}") for row in rows]
    print_table("Architectures", ("name", "parameters", "GMAC", "at"), table)
