"""The targets as a machine sees them: a Jetson with its JetPack, one on JetPack 5, and the machine that runs the tests."""

from __future__ import annotations

from pathlib import Path

from edge_resnet.devices import DeviceStatus, device_statuses


def statuses(root: Path, model: str, revision: str) -> dict[str, DeviceStatus]:
    for name, content in (("proc/device-tree/model", f"{model}\0"), ("etc/nv_tegra_release", f"# R{revision}, x")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return {status.target.name: status for status in device_statuses(root)}


def test_on_a_jetson(tmp_path: Path) -> None:
    found = statuses(tmp_path, "NVIDIA Jetson Orin Nano Developer Kit", "36 (release), REVISION: 4.3")
    assert [name for name, status in found.items() if status.this] == ["cpu", "jetson-orin-nano"]
    document = found["jetson-orin-nano"].to_json()
    assert document["jetpack"] == {
        "version": "6.2",
        "l4t": "36.4.3",
        "cuda": "12.6",
        "tensorrt": "10.3.0",
        "python": "3.10",
    }
    assert document["instead"] is None
    assert found["jetson-agx-orin"].to_json()["jetpack"] is None


def test_what_is_known_of_each_device_is_told(tmp_path: Path) -> None:
    found = {status.target.name: status.to_json() for status in device_statuses(tmp_path / "nowhere")}
    nano, orin = found["jetson-orin-nano"], found["jetson-agx-orin"]
    assert (nano["sms"], nano["dla_cores"], orin["dla_cores"], found["jetson-orin-nx"]["dla_cores"]) == (
        [87],
        0,
        2,
        None,
    )
    (module,) = nano["modules"]
    assert (module["memory_gb"], module["power_modes"]) == (8, ["MAXN_SUPER", "25W", "15W", "7W"])
    assert [module["memory_gb"] for module in orin["modules"]] == [64, 32]
    assert found["cpu"]["modules"] == found["jetson-thor"]["modules"] == []


def test_what_has_no_python_for_us_is_served_by_trtexec(tmp_path: Path) -> None:
    line = "served without Python there: edge-resnet export-trtexec BUNDLE --target {} -o FOLDER"
    elsewhere = {status.target.name: status.instead for status in device_statuses(tmp_path / "nowhere")}
    assert {name: why for name, why in elsewhere.items() if why} == {
        name: line.format(name) for name in ("jetson-agx-xavier", "jetson-xavier-nx")
    }
    old = statuses(tmp_path, "NVIDIA Jetson AGX Orin Developer Kit", "35 (release), REVISION: 4.1")
    assert old["jetson-agx-orin"].instead == line.format("jetson-agx-orin")
