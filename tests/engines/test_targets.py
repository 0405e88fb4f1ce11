"""Targets: what the device files say, and how a name is looked up."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from edge_resnet.engines import targets as targets_module
from edge_resnet.engines.targets import Target, all_targets, target_named
from edge_resnet.errors import EngineError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS_AND_SMS = {
    "cpu": ("onnxruntime", ()),
    "jetson-agx-orin": ("tensorrt", (87,)),
    "jetson-agx-xavier": ("tensorrt", (72,)),
    "jetson-orin-nano": ("tensorrt", (87,)),
    "jetson-orin-nx": ("tensorrt", (87,)),
    "jetson-thor": ("tensorrt", (110,)),
    "jetson-xavier-nx": ("tensorrt", (72,)),
    "rtx": ("tensorrt-rtx", (75, 80, 86, 89, 120, 121)),
    "rtx-20": ("tensorrt-rtx", (75,)),
    "rtx-30": ("tensorrt-rtx", (86,)),
    "rtx-40": ("tensorrt-rtx", (89,)),
    "rtx-50": ("tensorrt-rtx", (120,)),
}


def test_every_target_has_its_kind_and_sms_in_alphabetical_order() -> None:
    assert {name: (target.kind, target.sms) for name, target in all_targets().items()} == KINDS_AND_SMS
    assert list(all_targets()) == sorted(KINDS_AND_SMS)


@pytest.mark.parametrize("name", KINDS_AND_SMS)
def test_device_file_is_named_like_its_target_and_has_no_key_that_is_not_read(name: str) -> None:
    target = all_targets()[name]
    path = Path(targets_module.__file__).with_name("devices") / f"{name}.toml"
    keys = set(tomllib.loads(path.read_text(encoding="utf-8")))
    assert target.name == name
    assert target.description
    assert keys - {"jetpack"} <= {field.name for field in dataclasses.fields(Target)}
    assert target.precisions
    assert set(target.precisions) <= {"fp32", "fp16", "bf16", "int8", "fp8"}


def test_only_what_has_a_source_is_known_of_the_accelerators() -> None:
    """NVIDIA's "Working with DLA" of 11.4.1 (Thor); its Deep-Learning-Accelerator-SW, README (AGX Orin) and FAQ (Nano)."""
    known = {name: target.dla_cores for name, target in all_targets().items() if target.dla_cores is not None}
    assert known == {"jetson-agx-orin": 2, "jetson-orin-nano": 0, "jetson-thor": 0}
    for name, core in (("jetson-agx-orin", 1), ("jetson-orin-nx", 1), ("jetson-orin-nano", None)):
        target_named(name).check_dla(core)
    with pytest.raises(EngineError, match="^jetson-orin-nano has no DLA: leave --dla out$"):
        target_named("jetson-orin-nano").check_dla(0)
    with pytest.raises(EngineError, match="^dla_core is 2, and jetson-agx-orin has 2: give 0 to 1$"):
        target_named("jetson-agx-orin").check_dla(2)


def test_jetsons_and_only_they_have_jetpacks() -> None:
    for name, target in all_targets().items():
        assert bool(target.jetpacks) == name.startswith("jetson-")
    assert [release.tensorrt for release in target_named("jetson-thor").jetpacks] == ["10.13.3", "10.13.3", "10.16.2"]
    assert {release.version for release in target_named("jetson-xavier-nx").jetpacks} == {"5.1 to 5.1.6"}


@pytest.mark.parametrize("name", ["jetson-agx-orin", "JETSON_AGX_ORIN", "jetsonAgxOrin"])
def test_hyphens_underscores_and_case_do_not_matter(name: str) -> None:
    assert target_named(name) is all_targets()["jetson-agx-orin"]


def test_unknown_target_is_refused_with_the_nearest_name_and_the_list() -> None:
    with pytest.raises(
        EngineError, match="unknown target 'jetson-orin-nan': did you mean 'jetson-orin-nano'"
    ) as caught:
        target_named("jetson-orin-nan")
    assert str(caught.value).endswith(f"choose one of {', '.join(sorted(KINDS_AND_SMS))}")


def test_unknown_target_that_is_near_to_none_gets_only_the_list() -> None:
    with pytest.raises(EngineError, match="^unknown target 'abacus': choose one of cpu, "):
        target_named("abacus")


def test_callers_cannot_change_the_targets() -> None:
    all_targets().clear()
    assert list(all_targets()) == sorted(KINDS_AND_SMS)


def test_an_engine_for_every_rtx_leaves_out_turing_where_turing_cannot_do_it() -> None:
    rtx = target_named("rtx")
    assert rtx.at("int8").sms == rtx.at("fp32").sms == (80, 86, 89, 120, 121)
    assert rtx.at("bf16").sms == rtx.at("int8").sms
    assert rtx.at("fp8").sms == (89, 120, 121)
    assert rtx.at("fp16").sms == rtx.sms == (75, 80, 86, 89, 120, 121)


@pytest.mark.parametrize(
    ("target", "precision"), [("cpu", "fp16"), ("rtx-20", "int8"), ("rtx-20", "fp32"), ("rtx-30", "fp8")]
)
def test_a_precision_that_no_device_of_the_target_has_is_refused(target: str, precision: str) -> None:
    with pytest.raises(EngineError, match=f"target '{target}' has no {precision}: choose one of"):
        target_named(target).at(precision)
