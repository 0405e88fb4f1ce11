"""Archives that torch unpacks, and Python's ``zipfile`` measures otherwise or not at all: the limit holds for them too."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge_resnet.errors import ModelError
from edge_resnet.limits import VARIABLE
from edge_resnet.weights import read_checkpoint

WEIGHT = torch.zeros(1000, 5000)
LARGEST = 1_000_000
"""Bytes; the weight has twenty times as many, and a few KB deflated."""
CENTRAL, END = b"PK\x01\x02", struct.Struct("<4s4H2IH")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "plain.pth"
    torch.save({"fc.weight": WEIGHT}, path)
    return path.read_bytes()


def deflated(saved: bytes, change: Callable[[zipfile.ZipInfo], None] = lambda member: None) -> bytes:
    """The same archive, compressed; ``change`` is for what the directory says, written after the members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            archive.writestr(name, source.read(name))
        for member in archive.infolist():
            change(member)
    return buffer.getvalue()


def with_a_broken_extra_field(saved: bytes) -> bytes:
    def broken(member: zipfile.ZipInfo) -> None:
        member.extra = struct.pack("<HH", 0x7777, 0xFFF0)

    return deflated(saved, broken)


def with_a_second_directory(saved: bytes) -> bytes:
    """Where ``zipfile`` looks, right before the end; the record names the first one, where torch looks."""
    data = deflated(saved)
    body, end = data[: -END.size], data[-END.size :]
    *_, length, offset, _ = END.unpack(end)
    directory = bytearray(body[offset : offset + length])
    place = directory.find(CENTRAL)
    while place >= 0:
        struct.pack_into("<I", directory, place + 24, 1)  # the size, unpacked
        place = directory.find(CENTRAL, place + 1)
    return body + directory + end


@pytest.mark.parametrize("form", [with_a_broken_extra_field, with_a_second_directory])
def test_what_torch_unpacks_and_zipfile_does_not_see_is_refused(
    saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "small.pth"
    path.write_bytes(form(saved))
    assert path.stat().st_size < 100_000
    assert torch.load(path, weights_only=True)["fc.weight"].shape == WEIGHT.shape, "torch does unpack it"
    try:
        with zipfile.ZipFile(path) as archive:
            assert sum(member.file_size for member in archive.infolist()) < LARGEST
    except zipfile.BadZipFile:
        pass
    monkeypatch.setenv(VARIABLE, f"checkpoint_bytes={LARGEST}")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ModelError, match="small.pth is damaged, cut short or no checkpoint"):
        read_checkpoint(path)


def test_zip64_records_are_those_before_the_end(saved: bytes, tmp_path: Path) -> None:
    """torch.save writes them always; a locator that leads elsewhere is followed by one reader and not by the other."""
    path = tmp_path / "plain.pth"
    locator = saved.rindex(b"PK\x06\x07")
    for place, passes in ((saved.rindex(b"PK\x06\x06"), True), (0, False)):
        path.write_bytes(saved[: locator + 8] + struct.pack("<Q", place) + saved[locator + 16 :])
        if passes:
            assert list(read_checkpoint(path)) == ["fc.weight"]
        else:
            with pytest.raises(ModelError, match="is damaged"):
                read_checkpoint(path)


def test_an_archive_of_another_tool_is_measured(saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deflated.pth"
    path.write_bytes(deflated(saved))
    assert list(read_checkpoint(path)) == ["fc.weight"]
    monkeypatch.setenv(VARIABLE, f"checkpoint_bytes={LARGEST}")
    with pytest.raises(ModelError, match="bytes unpacked: the limit checkpoint_bytes is 1000000"):
        read_checkpoint(path)
