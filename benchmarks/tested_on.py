"""Makes docs/tested-on.md of the records in docs/tested-on/, which the tests on a GPU wrote.

python -m pytest tests/gpu --record docs/tested-on/NAME.json    on a machine with a GPU
python benchmarks/tested_on.py                                  anywhere
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
HEAD = """# What has run on a real GPU

Each record is what `python -m pytest tests/gpu --record docs/tested-on/NAME.json` wrote on that machine; `python
benchmarks/tested_on.py` makes this page of them. `tests/gpu/cuda` needs a GPU alone, `tests/gpu/engines` TensorRT or
TensorRT-RTX too.
"""
NONE = """
There is no record yet: nothing of this project has run on a GPU so far. Until then, this stands for it:

- `engines/cuda/bindings.py` and `pycuda_api.py`: the real bindings run, on a driver's double in C (`tests/engines/cuda`).
  Not checked: that a driver does what its double does.
- `engines/_tensorrt.py` and `_tensorrt_run.py`: doubles of CUDA and of TensorRT's runtime, stricter than both
  (`tests/engines/test_tensorrt_run.py`), with answers by exact evaluation. Not checked: the library's own execution, its
  timing, and CUDA graphs of its kernels.
- `engines/_tensorrt_build.py` and `trt_rtx.py`: the real TensorRT-RTX compiler, which needs no GPU. Not checked: running
  what it made.
- `engines/trt.py`: the names of every version's real interface. Not checked: TensorRT's compiler, which needs the device.
"""


def page(records: dict[str, dict[str, Any]]) -> str:
    """The page, from record name to record."""
    if not records:
        return HEAD + NONE
    return HEAD + "".join(_section(name, record) for name, record in sorted(records.items()))


def _section(name: str, record: dict[str, Any]) -> str:
    packages = ", ".join(f"{package} {version}" for package, version in record["packages"].items())
    lines = [
        f"\n## {record['gpu']} (SM {record['sm']})\n",
        f"{record['date']}, [record]({f'tested-on/{name}.json'}): {record['machine']}, CUDA {record['cuda']}, driver "
        f"{record['driver'] or 'not told'}, Python {record['python']}, {packages}; clocks (SM, memory, their maxima) "
        f"{record['clocks_mhz'] or 'not told'} MHz.\n",
        "| tests | passed | failed | skipped |\n|---|---|---|---|",
        *(
            f"| `{file}` | {counts.get('passed', 0)} | {counts.get('failed', 0)} | {counts.get('skipped', 0)} |"
            for file, counts in record["outcomes"].items()
        ),
    ]
    if record["figures"]:
        lines += ["\n| measured | |\n|---|---|"]
        lines += [f"| {figure['what']} | {figure['value']:g} {figure['unit']} |" for figure in record["figures"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "tested-on").glob("*.json")}
    (DOCS / "tested-on.md").write_text(page(records), encoding="utf-8")


if __name__ == "__main__":
    main()
