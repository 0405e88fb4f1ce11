"""What device this is, by files as they are found on Jetsons; and which JetPack a Jetson Linux belongs to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_resnet.engines import cuda
from edge_resnet.engines.jetpacks import jetpack_named, jetpack_of_l4t, without_python
from edge_resnet.engines.targets import all_targets, target_named
from edge_resnet.engines.this_device import ThisDevice, this_device
from edge_resnet.errors import EngineError, UnavailableError

R36 = """# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025
# KERNEL_VARIANT: oot
TARGET_USERSPACE_LIB_DIR=nvidia
TARGET_USERSPACE_LIB_DIR_PATH=usr/lib/aarch64-linux-gnu/nvidia
"""
R35 = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 19:57:35 UTC 2023\n"


@pytest.fixture
def jetson(tmp_path: Path) -> Callable[[str, str], Path]:
    """A root with a Jetson's two files."""

    def make(model: str, release: str) -> Path:
        for name, content in (("proc/device-tree/model", f"{model}\0"), ("etc/nv_tegra_release", release)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("model", "release", "target", "jetpack", "tensorrt"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", R36, "jetson-orin-nano", "6.2", "10.3.0"),
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", R36, "jetson-orin-nano", "6.2", "10.3.0"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", R36, "jetson-orin-nx", "6.2", "10.3.0"),
        ("NVIDIA Jetson AGX Orin Developer Kit", R35, "jetson-agx-orin", "5.1 to 5.1.6", "8.5.2"),
        ("NVIDIA Jetson Xavier NX Developer Kit", R35, "jetson-xavier-nx", "5.1 to 5.1.6", "8.5.2"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "# R38 (release), REVISION: 4.0, x", "jetson-thor", "7.1", "10.13.3"),
    ],
)
def test_a_jetson_is_one_target_with_its_jetpack(
    model: str, release: str, target: str, jetpack: str, tensorrt: str, jetson: Callable[[str, str], Path]
) -> None:
    here = this_device(jetson(model, release))
    assert here.model == model
    jetsons = {name for name, one in all_targets().items() if one.jetpacks and here.is_one(one)}
    assert jetsons == {target}
    found = here.jetpack(target_named(target))
    assert found is not None and (found.version, found.tensorrt) == (jetpack, tensorrt)
    assert here.jetpack(target_named("jetson-thor" if target != "jetson-thor" else "jetson-orin-nx")) is None


def test_another_machine_is_no_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpu_sm", lambda: 89)
    here = this_device(tmp_path)
    assert here == ThisDevice(None, None, 89)
    assert {name for name, one in all_targets().items() if here.is_one(one)} == {"cpu", "rtx", "rtx-40"}

    def missing() -> int:
        raise UnavailableError("cuda-bindings is not installed")

    monkeypatch.setattr(cuda, "gpu_sm", missing)
    here = this_device(tmp_path)
    assert {name for name, one in all_targets().items() if here.is_one(one)} == {"cpu"}


def test_a_release_file_of_another_kind_says_nothing(jetson: Callable[[str, str], Path]) -> None:
    here = this_device(jetson("NVIDIA Jetson AGX Orin Developer Kit", "Ubuntu 22.04\n"))
    assert here.l4t is None and here.jetpack(target_named("jetson-agx-orin")) is None


@pytest.mark.parametrize(
    ("l4t", "version"),
    [
        *[("35.2.1", "5.1 to 5.1.6"), ("35.6.4", "5.1 to 5.1.6"), ("35.1.0", None)],
        *[("36.3", "6.0"), ("36.3.0", "6.0"), ("36.4.0", "6.1"), ("36.4.7", "6.2.1"), ("36.4.8", None)],
        *[("36.5.0", "6.2.2"), ("37.0", None), ("x", None)],
    ],
)
def test_the_jetpack_of_a_jetson_linux(l4t: str, version: str | None) -> None:
    found = jetpack_of_l4t(target_named("jetson-orin-nano"), l4t)
    assert (found.version if found is not None else None) == version


def test_a_jetpack_by_its_name() -> None:
    orin = target_named("jetson-orin-nx")
    assert jetpack_named(orin, None).version == "7.2"
    assert jetpack_named(orin, "5.1.2").tensorrt == "8.5.2"
    assert [without_python(jetpack_named(orin, version)) for version in ("5.1", "6.0", "7.2")] == [True, False, False]
    with pytest.raises(EngineError, match="no JetPack '4.6' for jetson-orin-nx: choose one of 5.1 to 5.1.6, 6.0, 6.1,"):
        jetpack_named(orin, "4.6")
    with pytest.raises(EngineError, match="target 'rtx' is no Jetson: only they have a JetPack"):
        jetpack_named(target_named("rtx"), None)
