"""How long a user waits: for the import, for the command line, for the first prediction, for the demo.

    python benchmarks/startup.py [--make-demo]

Every figure is the median of processes of their own, started one after another. ``--make-demo`` runs ``make demo`` twice
in this repository and reports the second, when everything is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import Row, Table, parser, report

from edge_resnet.demo import TEST

REPOSITORY = Path(__file__).resolve().parents[1]

IMPORT = """
import time
start = time.perf_counter()
import edge_resnet
print(time.perf_counter() - start)
"""

CLASSIFY = """
import sys, time
start = time.perf_counter()
import edge_resnet
with edge_resnet.Classifier(sys.argv[1]) as classifier:
    classifier(sys.argv[2])
print(time.perf_counter() - start)
heavy = {"torch", "onnx"} & set(sys.modules)
sys.exit(f"a classification imports {', '.join(sorted(heavy))}" if heavy else 0)
"""


def own_report(code: str, *arguments: object) -> Callable[[], float]:
    """Runs Python code that prints how many seconds it took."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return lambda: float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def wall(*command: object) -> Callable[[], float]:
    """Runs a command from its start to its end."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=REPOSITORY)
        return time.perf_counter() - start

    return run


def row(name: str, seconds: Callable[[], float], runs: int) -> Row:
    """Median and slowest of some runs, behind one that fills the file cache."""
    seconds()
    found = np.array([seconds() for _ in range(runs)])
    return (name, f"{np.median(found):.2f} s", f"{found.max():.2f} s", str(runs))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=15, help="processes a figure (default 15)")
    arguments.add_argument("--make-demo", action="store_true", help="run `make demo` twice and time the second")
    options = arguments.parse_args()
    command = Path(sys.executable).with_name("edge-resnet")
    image = min(TEST.rglob("*.png"))
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "demo.edge"
        wall(command, "build", "--precision", "int8", "--target", "cpu", "-o", bundle)()
        rows = [
            row("Python itself", wall(sys.executable, "-c", "pass"), options.runs),
            row("import edge_resnet", own_report(IMPORT), options.runs),
            row("import, load the demo bundle, first prediction", own_report(CLASSIFY, bundle, image), options.runs),
            row("edge-resnet --help", wall(command, "--help"), options.runs),
            row("edge-resnet classify, one image", wall(command, "classify", bundle, image), options.runs),
        ]
    if options.make_demo:
        rows.append(row("make demo, the second time", wall("make", "demo"), 1))
    report([Table("Time until something happens", ("what", "median", "slowest", "runs"), rows)], options.json)


if __name__ == "__main__":
    main()
