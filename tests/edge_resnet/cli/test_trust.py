"""``keygen``, ``sign``, ``verify`` and ``--trust`` as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hand_made_bundles import written

from edge_resnet.cli import app

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def ready(cli: Cli, tmp_path: Path) -> Path:
    """The current folder, with a key ``release``, a folder ``keys`` that trusts it, and ``model.edge``, unsigned."""
    assert cli("keygen", "release").stderr == ""
    (tmp_path / "keys").mkdir()
    shutil.copy(tmp_path / "release.pub", tmp_path / "keys")
    written(tmp_path / "model.edge")
    return tmp_path


def test_from_a_key_to_a_trusted_bundle(
    cli: Cli, cli_json: Callable[..., object], refused: Callable[..., str], ready: Path
) -> None:
    unsigned = refused(3, "verify", "model.edge", "--trust", "keys")
    assert unsigned == "bundle 'model.edge' is not signed, and keys is to be trusted: sign it with `edge-resnet sign`"
    signed = cli_json("sign", "model.edge", "--key", "release.key")
    assert isinstance(signed, dict) and len(signed["signed_by"]) == 1
    found = cli_json("verify", "model.edge", "--trust", "keys")
    assert found == {
        "bundle": "model.edge",
        "passed": True,
        "digest": signed["digest"],
        "signed_by": ["release.pub"],
        "engines": [],
        "why": None,
    }
    assert cli("verify", "model.edge", "--trust", "keys").stdout == "model.edge is signed by release.pub\n"
    assert cli_json("info", "model.edge", "--trust", "keys/release.pub")["signed_by"] == signed["signed_by"]  # type: ignore[index]


def test_a_stranger_fails_with_a_document(cli: Cli, ready: Path) -> None:
    cli("keygen", "stranger")
    cli("sign", "model.edge", "--key", "stranger.key")
    result = cli("verify", "model.edge", "--trust", "keys", "--json")
    document = json.loads(result.stdout)
    assert (result.returncode, document["passed"], document["digest"]) == (3, False, None)
    assert document["why"] == result.stderr.removeprefix("edge-resnet: ").strip()


@pytest.mark.parametrize(
    "command",
    [
        ("classify", "model.edge", "photo.png"),
        ("embed", "model.edge", "photo.png", "-o", "features.npy"),
        ("live", "photos", "--bundle", "model.edge"),
        ("bench", "model.edge"),
        ("bench", "model.edge", "--against", "fp32"),
        ("compare", "model.edge", "model.edge"),
        ("check", "model.edge", "--images", "photos"),
        ("compile", "model.edge", "--target", "cpu"),
        ("info", "model.edge"),
        ("info", "model.edge", "--verify"),
        ("info", "model.edge", "--sbom"),
        ("estimate", "model.edge", "--target", "jetson-orin-nano"),
        ("export-triton", "model.edge", "--target", "cpu", "-o", "out"),
        ("export-trtexec", "model.edge", "--target", "jetson-orin-nano", "-o", "out"),
        ("export-trtexec", "model.edge", "--target", "jetson-xavier-nx", "--calibration-cache", "-o", "out"),
        ("compile", "model.edge", "--target", "jetson-orin-nano", "--explain"),
        ("report", "model.edge"),
        ("push", "model.edge", "out", "shelf:v1"),
        ("explain", "model.edge", "photo.png"),
    ],
)
def test_every_command_that_opens_a_bundle_refuses_an_unsigned_one(
    refused: Callable[..., str], ready: Path, sneaker: Path, command: tuple[str, ...]
) -> None:
    (ready / "photos").mkdir()
    for place in (ready / "photo.png", ready / "photos" / "1.png"):
        shutil.copy(sneaker, place)
    assert "is not signed" in refused(3, *command, "--trust", "keys")
    assert not (ready / "out").exists()


def test_every_command_that_reads_a_bundle_can_be_asked_for_trust() -> None:
    """Whoever adds a command that opens one must add ``--trust``, and a line above."""
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    parameters = {name: command.params for name, command in commands.items()}
    reading = {
        name
        for name, given in parameters.items()
        if any("bundle" in f"{each.name} {each.metavar} {getattr(each, 'help', '')}".lower() for each in given)
    }
    trusting = {name for name, given in parameters.items() if any(each.name == "trust" for each in given)}
    assert reading - trusting <= {"build", "keygen", "sign"}, "which write bundles, or open none"
    assert {"info", "estimate", "export-triton", "verify"} <= reading & trusting


def test_a_lost_variable_is_no_trust_in_the_current_folder(refused: Callable[..., str], ready: Path) -> None:
    shutil.copy(ready / "release.pub", ready / "any.pub")
    assert "it is empty: give a folder of `.pub` files" in refused(2, "info", "model.edge", "--trust", "")


@pytest.mark.parametrize(
    "command",
    [
        ("estimate", "model.edge", "--target", "jetson-orin-nano"),
        ("export-triton", "model.edge", "--target", "cpu", "-o", "out"),
        ("export-trtexec", "model.edge", "--target", "jetson-orin-nano", "-o", "out"),
        ("compile", "model.edge", "--target", "jetson-orin-nano", "--explain"),
        ("info", "model.edge"),
    ],
)
def test_an_operator_can_force_it(
    refused: Callable[..., str], ready: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("EDGE_RESNET_TRUST", str(ready / "keys"))
    assert "is not signed" in refused(3, *command)


def test_a_passphrase_is_never_an_argument(
    cli: Cli, refused: Callable[..., str], ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nobody is there to type it: set EDGE_RESNET_PASSPHRASE" in refused(2, "keygen", "locked", "--passphrase")
    monkeypatch.setenv("EDGE_RESNET_PASSPHRASE", "correct horse")
    assert cli("keygen", "locked").returncode == 0
    assert b"ENCRYPTED" in (ready / "locked.key").read_bytes()
    assert cli("sign", "model.edge", "--key", "locked.key").returncode == 0
    monkeypatch.delenv("EDGE_RESNET_PASSPHRASE")
    assert "the key needs a passphrase" in refused(2, "sign", "model.edge", "--key", "locked.key")


def test_what_cannot_be_meant(refused: Callable[..., str], ready: Path, demo_onnx: Path) -> None:
    assert "nobody says who is to be trusted with model.edge: give --trust KEYS" in refused(2, "verify", "model.edge")
    assert "is no bundle, and only those are signed" in refused(2, "info", demo_onnx, "--trust", "keys")
    compiled = ("compile", demo_onnx, "--target", "cpu", "-o", "x.engine")
    assert "is no bundle, and only those are signed" in refused(2, *compiled, "--trust", "keys")
    assert "one of an ONNX file has no record" in refused(2, *compiled, "--sign-with", "release.key")
    explained = ("compile", "model.edge", "--target", "jetson-orin-nano", "--explain")
    assert "leave --sign-with out" in refused(2, *explained, "--sign-with", "release.key")
    handed = ("export-trtexec", demo_onnx, "--target", "jetson-xavier-nx", "-o", "out")
    assert "is no bundle, and only those are signed" in refused(2, *handed, "--trust", "keys")
    estimated = ("estimate", "resnet50", "--target", "jetson-orin-nano")
    assert "is no bundle, and only those are signed" in refused(2, *estimated, "--trust", "keys")
    assert "--sbom prints its list alone" in refused(2, "info", "model.edge", "--sbom", "--verify")
    assert "it exists already, and a key is never replaced" in refused(2, "keygen", "release")
