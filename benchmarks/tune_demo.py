"""Does ``tune`` find a recipe at least as good as the hand-set default? On the demo network.

    python benchmarks/tune_demo.py [--trials 50] [--target cpu jetson-orin-nano] [--storage FOLDER]

The goal is a drop of at most 0.5 points at the default recipe's own speed. Half of the 1,000 test images choose, the other
half gives the figures. ``cpu`` is measured; ``jetson-orin-nano`` has its latency estimated and its accuracy predicted. With
``--storage`` a run that was cut off goes on.
"""

from __future__ import annotations

import time
from pathlib import Path

from _common import Row, Table, parser, report

from edge_resnet.demo import demo_recipe
from edge_resnet.tuning.goal import Goal
from edge_resnet.tuning.tried import Figures, Tried
from edge_resnet.tuning.tune import Plan, tune

HEADER = (
    "target",
    "recipe",
    "trial",
    "settings",
    "ms",
    "SQNR, chose",
    "SQNR, unseen",
    "agreement",
    "drop (95 %), unseen",
)


def row(target: str, name: str, tried: Tried, unseen: Figures) -> Row:
    settings, (low, high) = tried.settings, unseen.ci95
    chain = f"{settings.method}; {settings.effort}: {' '.join(settings.refine)}; {len(settings.keep_float)} float"
    size = "" if settings.size is None else f"; {settings.size[0]} pixels"
    quality = (f"{tried.figures.sqnr_db:.2f} dB", f"{unseen.sqnr_db:.2f} dB", f"{unseen.agreement:.4f}")
    drop = f"{unseen.drop:+.2f} ({low:+.2f} to {high:+.2f})"
    return (target, name, str(tried.number), chain + size, f"{tried.latency_ms:.3f}", *quality, drop)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=50)
    arguments.add_argument("--target", nargs="+", default=["cpu", "jetson-orin-nano"])
    arguments.add_argument("--storage", type=Path, help="a folder to keep the searches in")
    options = arguments.parse_args()
    if options.storage is not None:
        options.storage.mkdir(parents=True, exist_ok=True)
    tables = []
    for target in options.target:
        kept = None if options.storage is None else options.storage / f"{target}.db"
        start = time.perf_counter()
        found = tune(demo_recipe(), Goal(None, 0.5), target, Plan(options.trials, storage=kept))
        rows = [row(target, "default", found.own, found.own_unseen), row(target, "tuned", found.chosen, found.unseen)]
        early = found.trials - len(found.tried)
        title = (
            f"{target}: {found.trials} trials, {early} ended early, {time.perf_counter() - start:.0f} s; goal met: "
            f"{found.met}; latency is {found.latency}, accuracy {found.evaluated}"
        )
        tables.append(Table(title, HEADER, rows))
        print(tables[-1], flush=True)
    report(tables, options.json)


if __name__ == "__main__":
    main()
