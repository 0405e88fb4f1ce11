"""The real Python bindings of CUDA, on a driver's double in C: every call that engines make, as the bindings take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
SOURCE = TESTS / "support" / "libcuda_double.c"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``libcuda.so.1``; functions that PyCUDA is linked to and nobody calls are there, and refuse."""
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    stubs = folder / "stubs.c"
    stubs.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in _unresolved()), encoding="utf-8")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", str(library), str(SOURCE), str(stubs), "-ldl"], check=True)
    return folder


def _unresolved() -> list[str]:
    spec = find_spec("pycuda")
    if spec is None or spec.origin is None:
        return []
    (library,) = Path(spec.origin).parent.glob("_driver*.so")
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    needed = {line.split()[-1].split("@")[0] for line in symbols.stdout.splitlines()}
    defined = SOURCE.read_text(encoding="utf-8")
    return sorted(name for name in needed if name.startswith("cu") and f" {name}(" not in defined)


def run(driver: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=TESTS.parent, check=False
    )


def test_the_contract_of_the_bindings_holds(driver: Path) -> None:
    ended = run(driver, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/cuda/test_api.py")
    assert ended.returncode == 0, ended.stdout
    assert "passed" in ended.stdout
    skipped = [line for line in ended.stdout.splitlines() if line.startswith("SKIPPED")]
    assert not any("cuda-bindings" in line for line in skipped), "nothing of cuda-bindings may be skipped"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "87"),
        ({"LIBCUDA_DOUBLE_NO_DEVICE": "1"}, "None"),
        ({"EDGE_RESNET_CUDA": "cuda-bindings"}, "87"),
        ({"EDGE_RESNET_CUDA": "opencl"}, "unknown CUDA binding 'opencl': choose one of cuda-bindings, pycuda"),
    ],
)
def test_the_gpu_is_found_and_its_absence_too(driver: Path, variables: dict[str, str], said: str) -> None:
    code = "from edge_resnet.engines.cuda import gpu_sm; print(gpu_sm())"
    ended = run(driver, "-c", code, **variables)
    assert said in (ended.stdout + ended.stderr).strip().splitlines()[-1]


def test_a_target_is_told_by_the_gpus_sm(driver: Path) -> None:
    code = (
        "from edge_resnet.engines.targets import target_named as t\n"
        "from edge_resnet.engines.trt import TensorRtEngine as e\n"
    )
    orin, thor = (
        run(driver, "-c", f"{code}print(e.why_not_run(t({name!r})))").stdout
        for name in ("jetson-orin-nano", "jetson-thor")
    )
    assert orin.startswith("tensorrt is not installed")
    assert thor.startswith("needs an NVIDIA GPU with SM 110 (this host's has SM 87)")
