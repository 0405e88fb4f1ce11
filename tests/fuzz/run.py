"""The long run: ``python tests/fuzz/run.py --inputs 1000000``.

Every parser gets its share, half of it from a coverage-guided fuzzer (atheris, where it is installed) with our mutations as
its own, half from a seeded loop. Each half is a process, so that a crash is a finding and not the end. Prints a line each,
and leaves the inputs that broke a promise in ``--findings``. Exits 1 when there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))
STATS = "stats.json"
LONGEST = 1 << 16
"""Bytes of an input, for the coverage-guided fuzzer."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--inputs", type=int, default=1_000_000)
    arguments.add_argument("--parser", action="append")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    arguments.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        CHILDREN[given.child](given.parser[0], given.inputs, given.seed, given.findings)
        return 0
    given.findings.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(given.jobs) as pool:
        jobs = list(shares(given.parser, given.inputs))
        done = list(pool.map(lambda job: run(*job, seed=given.seed, findings=given.findings.absolute()), jobs))
    inputs, found = sum(each[0] for each in done), sum(each[1] for each in done)
    print(f"{inputs} inputs, {found} findings")
    return 1 if found else 0


def shares(chosen: list[str] | None, inputs: int) -> Iterator[tuple[str, str, int]]:
    """Parser, how, and how many inputs; the slow parsers first."""
    from fuzz_parsers import PARSERS

    parsers = [PARSERS[name] for name in chosen or PARSERS]
    every = sum(parser.weight for parser in parsers)
    ways = ("guided", "mutated") if find_spec("atheris") else ("mutated",)
    for parser in sorted(parsers, key=lambda parser: parser.weight):
        for way in ways:
            yield parser.name, way, -(-inputs * parser.weight // every // len(ways))


def run(parser: str, way: str, inputs: int, *, seed: int, findings: Path) -> tuple[int, int]:
    """One child; gives how many inputs it parsed, and how many kinds of findings there were."""
    with TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--child", way, "--parser", parser, "--inputs", str(inputs)]
        done = subprocess.run(
            [*command, "--seed", str(seed), "--findings", str(findings)], cwd=name, capture_output=True, check=False
        )
        stats = json.loads(Path(name, STATS).read_bytes()) if Path(name, STATS).exists() else {}
        found = stats.get("findings", {})
        whole = done.returncode == 0 and stats.get("inputs", 0) >= inputs
        print(f"{parser} ({way}): {stats.get('inputs', 0)} inputs, {stats.get('refused', 0)} refused, ", end="")
        print(
            f"slowest {stats.get('slowest_s', 0):.2f} s, {len(found)} findings", *found.values(), sep="\n  ", flush=True
        )
        if not whole and not found:
            print(f"  ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}", flush=True)
            for left in Path(name, "in").glob("input*"):  # a crash leaves its input
                left.rename(findings / f"{parser}-crash{left.suffix}")
        return stats.get("inputs", 0), len(found) or (0 if whole else 1)


def mutate(name: str, inputs: int, seed: int, findings: Path) -> None:
    """Goes on behind a finding; those of one place count once."""
    from fuzz_parsers import PARSERS
    from fuzz_watch import Finding, Watch, mutated

    parser, watch, rng = PARSERS[name], Watch(Path("in")), random.Random(f"{name} {seed}")
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    while watch.inputs < inputs:
        data = mutated(parser, rng)
        try:
            watch.check(parser, data)
        except Finding as finding:
            place = where(finding)
            counts[place] += 1
            if counts[place] == 1:
                found[place] = keep(name, data, findings, finding)
    write(watch, found)


def guide(name: str, inputs: int, seed: int, findings: Path) -> None:
    """Stops at the first finding, as libFuzzer does."""
    import atheris

    with atheris.instrument_imports(include=["edge_resnet"]):
        from fuzz_parsers import PARSERS
        from fuzz_watch import Finding, Watch

        parser, watch = PARSERS[name], Watch(Path("in"))
    seeds = Path("seeds")
    seeds.mkdir()
    for number, data in enumerate(parser.seeds()):
        (seeds / str(number)).write_bytes(data)

    def one_input(data: bytes) -> None:
        try:
            watch.check(parser, data)
        except Finding as finding:
            write(watch, {where(finding): keep(name, data, findings, finding)})
            os._exit(1)
        if watch.inputs >= inputs:
            write(watch, {})
            os._exit(0)

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        changed: bytes = parser.mutate(rng, data) if data and rng.random() < 0.7 else atheris.Mutate(data, most)
        return changed[:most]

    options = [f"-seed={seed + 1}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=300", str(seeds)]
    atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=change)
    atheris.Fuzz()


def where(finding: BaseException) -> str:
    """The place that raised, so that a thousand inputs with one cause are one finding."""
    trace = finding.__cause__.__traceback__ if finding.__cause__ else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(finding)[:60] if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def keep(parser: str, data: bytes, findings: Path, finding: BaseException) -> str:
    from hashlib import sha256

    path = findings / parser / sha256(data).hexdigest()[:16]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return f"{where(finding)}: {str(finding).partition('; the input')[0][:200]}: {path}"


def write(watch: object, found: dict[str, str]) -> None:
    counts = {key: getattr(watch, key) for key in ("inputs", "refused", "slowest_s")}
    Path(STATS).write_text(json.dumps({**counts, "findings": found}))


CHILDREN = {"mutated": mutate, "guided": guide}

if __name__ == "__main__":
    sys.exit(main())
