"""Which device gets which bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_resnet.errors import EngineError, RecipeError, RegistryError
from edge_resnet.progress import Progress
from edge_resnet.registry import Reference, Registry, open_registry, push
from edge_resnet.rollout import Device, assign, load_fleet, place

FLEET = """
registry = "{registry}"

[models.shelf]
stable = "v1"
canary = "v2"
fraction = {fraction}

[models.belt]
stable = "v1"

{devices}
"""
DEVICE = """
[[devices]]
name = "{name}"
target = "Jetson_Orin_Nano"
model = "{model}"
ring = "{ring}"
"""


@pytest.fixture
def registry(quick_bundle: Path, fp32_bundle: Path, tmp_path: Path) -> Registry:
    found = open_registry(tmp_path / "registry")
    for name, bundle in (("shelf:v1", fp32_bundle), ("shelf:v2", quick_bundle), ("belt:v1", fp32_bundle)):
        push(bundle, found, Reference.parse(name), Progress())
    return found


def inventory(tmp_path: Path, registry: Registry, *devices: str, fraction: float = 0.1) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET.format(registry=registry.address, fraction=fraction, devices="".join(devices)))
    return path


def many(count: int) -> list[str]:
    return [DEVICE.format(name=f"arm-{number}", model="shelf", ring="any") for number in range(count)]


def test_rings_and_models(registry: Registry, tmp_path: Path) -> None:
    devices = [
        DEVICE.format(name=name, model=model, ring=ring)
        for name, model, ring in (
            ("a", "shelf", "canary"),
            ("b", "shelf", "stable"),
            ("c", "belt", "canary"),  # which has none
        )
    ]
    found = assign(load_fleet(inventory(tmp_path, registry, *devices, fraction=1.0)), registry)
    assert [each.bundle for each in found] == ["shelf:v2", "shelf:v1", "belt:v1"]
    assert [each.target for each in found] == ["jetson-orin-nano"] * 3
    assert found[0].why == "canary: its ring" and found[0].digest != found[1].digest == found[2].digest
    assert found[0].command == f"edge-resnet pull {registry.address} shelf:v2 -o shelf.edge"


def test_a_larger_share_only_adds_devices(registry: Registry, tmp_path: Path) -> None:
    fleet = load_fleet(inventory(tmp_path, registry, *many(400)))
    before: set[str] = set()
    for share in (0.0, 0.05, 0.25, 0.5, 1.0):
        canaries = {each.device for each in assign(fleet.with_fraction(share), registry) if each.bundle == "shelf:v2"}
        assert before <= canaries
        deviation = (400 * share * (1 - share)) ** 0.5
        assert abs(len(canaries) - 400 * share) <= 4 * deviation  # binomial, four deviations
        before = canaries


def test_the_next_canary_is_tried_by_others() -> None:
    devices = [Device(f"arm-{number}", "cpu", "shelf") for number in range(1000)]
    first, second = ({each.name for each in devices if place(each, tag) < 0.1} for tag in ("v2", "v3"))
    assert len(first & second) < 30  # 10 by chance


def test_the_command(registry: Registry, cli: Callable[..., Any], cli_json: Callable[..., Any], tmp_path: Path) -> None:
    path = inventory(tmp_path, registry, *many(10), fraction=0)
    found = cli_json("rollout", path, "--canary", 1)
    assert [(each["device"], each["bundle"]) for each in found] == [(f"arm-{n}", "shelf:v2") for n in range(10)]
    assert "shelf:v1: 10" in cli("rollout", path).stdout
    assert all("--trust" not in each["command"] for each in found)


def test_devices_that_trust_keys_ask_for_them(registry: Registry, cli_json: Callable[..., Any], tmp_path: Path) -> None:
    path = inventory(tmp_path, registry, *many(1))
    path.write_text(f"trust = '/etc/our keys'\n{path.read_text()}")
    (found,) = cli_json("rollout", path)
    assert found["command"].endswith(" -o shelf.edge --trust '/etc/our keys'")
    (found,) = cli_json("rollout", path, "--trust", "keys/")
    assert found["command"].endswith(" -o shelf.edge --trust keys")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("registry = 1", RecipeError, "'registry' in .* give a string"),
        ("registry = 'r'", RecipeError, "an inventory has registry"),
        ("registry = 'r'\nmodels = {}\ndevices = [1]", RecipeError, "1 is no table"),
        ("registry = 'r'\nmodels = {a = {}}\ndevices = []", RecipeError, r"\[models.a\] lacks 'stable'"),
        ("registry = 'r'\nmodels = {a = {stable = 'x y'}}\ndevices = []", RegistryError, "'a:x y' names nothing"),
        (
            "registry = 'r'\nmodels = {a = {stable = 'x', fraction = 2}}\ndevices = []",
            RecipeError,
            "give a share of the devices",
        ),
        ("registry = 'r'\nmodels = {}\ndevices = [{name = 'd'}]", RecipeError, "lacks name, target or model"),
        (
            "registry = 'r'\nmodels = {a = {stable = 'x'}}\ndevices = [{name = 'd', target = 'cpu', model = 'b'}]",
            RecipeError,
            "choose one of a",
        ),
        (
            "registry = 'r'\nmodels = {a = {stable = 'x'}}\ndevices = [{name = 'd', target = 'tpu', model = 'a'}]",
            EngineError,
            "tpu",
        ),
        (
            "registry = 'r'\nmodels = {a = {stable = 'x'}}\n"
            + 2 * "[[devices]]\nname = 'd'\ntarget = 'cpu'\nmodel = 'a'\n",
            RecipeError,
            "two devices are called 'd'",
        ),
        (
            "registry = 'r'\ntrust = ''\nmodels = {}\ndevices = []",
            RecipeError,
            "'trust' .* give a string, not empty",
        ),
        ("registry = ", RecipeError, "is no valid TOML"),
    ],
)
def test_what_cannot_be_is_refused(text: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        load_fleet(path)
