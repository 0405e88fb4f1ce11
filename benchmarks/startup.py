"""How long a user waits: for the import, for the command line, for the first prediction, for the demo.

    python benchmarks/startup.py [--make-demo]

Every figure is the median of processes of their own, started one after another. ``--make-demo`` runs ``make demo`` twice
in this repository and reports the second, when everything is installed.

The second table is what checking a bundle costs of that: the SHA-256 of all its bytes when it is opened, and of each engine
once more when it is read. It is in processor time of one thread, for the demo's bundle and for one of a ResNet-50's size,
which has random bytes in the place of networks: a digest takes as long.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import Row, Table, parser, report

from edge_resnet.bundle import FP32_MEMBER, QDQ_MEMBER, open_bundle, write_bundle
from edge_resnet.companion import engines_of
from edge_resnet.demo import TEST

REPOSITORY = Path(__file__).resolve().parents[1]
RESNET50_PARAMETERS = 25_557_032

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


def of_resnet50s_size(small: Path, path: Path) -> Path:
    """A bundle with the members of a small one, its networks as large as a ResNet-50's."""
    bundle = open_bundle(small)
    members = {name: bundle.read(name) for name in bundle.names}
    engines = {entry.member for entry in bundle.manifest.engines}
    int8 = [name for name in members if name in engines or name == QDQ_MEMBER]
    random = np.random.default_rng(0)
    sizes = {FP32_MEMBER: RESNET50_PARAMETERS * 4, **dict.fromkeys(int8, RESNET50_PARAMETERS)}
    write_bundle(path, bundle.manifest, members | {name: random.bytes(size) for name, size in sizes.items()})
    return path


def checks(path: Path, runs: int) -> list[Row]:
    """What opening a bundle and reading its engines takes, and what of it is hashing; milliseconds of processor time."""
    bundle = open_bundle(path)

    def spent(work: Callable[[], object]) -> float:
        work()
        found = []
        for _ in range(runs):
            start = time.process_time()
            work()
            found.append(1e3 * (time.process_time() - start))
        return float(np.median(found))

    def digests() -> None:
        for each in engines:
            hashlib.sha256(each.data)

    engines = engines_of(path, bundle).values()
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    read, opened = spent(path.read_bytes), spent(lambda: open_bundle(path))
    return [
        (size, "reading the file", f"{read:.1f} ms"),
        (size, "its digest, and the manifest", f"{opened - read:.1f} ms"),
        (size, "taking the engines out of it, checked", f"{spent(lambda: engines_of(path, bundle)):.1f} ms"),
        (size, "of that, their digests", f"{spent(digests):.1f} ms"),
    ]


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
        costs = [
            each
            for path in (bundle, of_resnet50s_size(bundle, Path(folder) / "large.edge"))
            for each in checks(path, 5)
        ]
    if options.make_demo:
        rows.append(row("make demo, the second time", wall("make", "demo"), 1))
    tables = [
        Table("Time until something happens", ("what", "median", "slowest", "runs"), rows),
        Table("Checking a bundle, processor time", ("bundle", "what", "median"), costs),
    ]
    report(tables, options.json)


if __name__ == "__main__":
    main()
