"""Bad input at the command line: one clear line, the documented exit code, and every file as it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file

from edge_resnet import demo

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
CliJson = Callable[..., Any]
Refused = Callable[..., str]
RecipeFile = Callable[..., Path]
WEIGHTS = demo.FOLDER / "resnet20-fashion-mnist.safetensors"
NOBODY = 65534


# Images.


def truncated(path: Path, image: Path) -> None:
    path.write_bytes(image.read_bytes()[:-60])


def renamed(path: Path, image: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def empty(path: Path, image: Path) -> None:
    path.touch()


@pytest.mark.parametrize("damage", [truncated, renamed, empty])
def test_a_damaged_image_is_named_wherever_it_is_met(
    damage: Callable[[Path, Path], None],
    demo_bundle: Path,
    demo_onnx: Path,
    few: Path,
    sneaker: Path,
    recipe_file: RecipeFile,
    refused: Refused,
    tmp_path: Path,
) -> None:
    shutil.copytree(few / "test", tmp_path / "images")
    bad = tmp_path / "images" / "bag" / "bad.png"
    damage(bad, sneaker)
    commands: list[tuple[object, ...]] = [
        ("classify", demo_bundle, sneaker, bad),
        ("check", demo_bundle, "--images", tmp_path / "images"),
        ("calibrate", demo_onnx, "--images", tmp_path / "images", "-o", "t.json"),
        ("build", recipe_file(calibration=tmp_path / "images", accuracy="")),
        ("build", recipe_file(accuracy=f'images = "{tmp_path / "images"}"')),
    ]
    for command in commands:
        line = refused(2, *command)
        assert str(bad) in line
        assert re.search("cannot be decoded|is no image, or a damaged one", line)


def saved(image: Image.Image, path: Path) -> Path:
    image.save(path)
    return path


def test_images_of_other_kinds_are_converted_or_refused(
    demo_bundle: Path, sneaker: Path, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    grey = Image.open(sneaker)
    wide = grey.convert("RGBA")
    half = wide.copy()
    half.putalpha(128)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    converted = {
        "grey.png": grey,
        "colour.png": grey.convert("RGB"),
        "opaque.png": wide,
        "cmyk.tif": grey.convert("RGB").convert("CMYK"),
        "palette.png": grey.convert("P"),
        "misnamed.jpg": grey,
    }
    paths = [saved(image, tmp_path / name) for name, image in converted.items() if name != "misnamed.jpg"]
    shutil.copy(sneaker, tmp_path / "misnamed.jpg")
    document = cli_json("classify", demo_bundle, *paths, tmp_path / "misnamed.jpg", "--target", "cpu")
    assert len(document) == len(converted)
    first = document[0]["predictions"]
    for entry in document:
        assert entry["predictions"][0]["label"] == "sneaker"
        assert entry["predictions"][0]["probability"] == pytest.approx(first[0]["probability"], abs=0.02)
    line = refused(2, "classify", demo_bundle, saved(half, tmp_path / "half.png"))
    assert line.endswith("half.png has transparent pixels: flatten it on the background that the camera would see")
    line = refused(2, "classify", demo_bundle, saved(deep, tmp_path / "deep.png"))
    assert line.endswith("deep.png has more than 8 bits a channel: scale it to 8 bits first, as the camera does")


# Sets of images.


def listing(tmp_path: Path, text: str) -> Path:
    (tmp_path / "images.csv").write_text(text)
    return tmp_path / "images.csv"


def test_sets_of_images_that_are_refused(
    demo_bundle: Path, demo_onnx: Path, sneaker: Path, recipe_file: RecipeFile, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "single" / "cat").mkdir(parents=True)
    shutil.copy(sneaker, tmp_path / "single" / "cat")
    sets = {
        tmp_path / "missing": "missing does not exist: give a folder of images, or a CSV of path,label",
        tmp_path / "empty": "empty has no images: give a folder of .jpg",
        tmp_path / "single": "single has one class folder, 'cat': name that folder itself",
        listing(tmp_path, f"path,label\n{sneaker},sneaker\ngone.png,bag\n"): (
            "images.csv line 3 names a file that does not exist, 'gone.png': correct its path"
        ),
    }
    for source, reason in sets.items():
        assert reason in refused(2, "check", demo_bundle, "--images", source)
        assert reason in refused(2, "calibrate", demo_onnx, "--images", source, "-o", "t.json")
    assert "'images' in [calibration] is" in refused(2, "build", recipe_file(calibration=tmp_path / "missing"))
    assert sets[tmp_path / "empty"] in refused(2, "build", recipe_file(calibration=tmp_path / "empty"))
    assert sets[tmp_path / "single"] in refused(2, "build", recipe_file(accuracy=f'images = "{tmp_path / "single"}"'))


# Checkpoints.


def checkpoint(path: Path, **changes: torch.Tensor) -> Path:
    save_file({**load_file(WEIGHTS), **changes}, path)
    return path


def refused_checkpoint(refused: Refused, recipe_file: RecipeFile, arch: str, weights: Path) -> str:
    """What both commands that read checkpoints say of one."""
    exported = refused(
        2, "export", "--arch", arch, "--weights", weights, "--preprocessing", "fashion-mnist", "-o", "x.onnx"
    )
    assert refused(2, "build", recipe_file(model=f'arch = "{arch}"\nweights = "{weights}"')) == exported
    return exported


def test_a_checkpoint_of_another_architecture(refused: Refused, recipe_file: RecipeFile) -> None:
    line = refused_checkpoint(refused, recipe_file, "resnet32", WEIGHTS)
    assert "does not fit resnet32 (missing: layer1.3.conv1.weight" in line and line.endswith(
        "it fits resnet20 or plain20"
    )


def test_a_pickle_that_would_execute_code(refused: Refused, recipe_file: RecipeFile, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": {"conv1.weight": Trap()}}, tmp_path / "trap.pth")
    line = refused_checkpoint(refused, recipe_file, "resnet20", tmp_path / "trap.pth")
    assert "is no checkpoint of tensors only" in line and "system" in line
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert (tmp_path / "executed").exists(), "the trap is a real one"


def test_weights_that_are_nan(refused: Refused, recipe_file: RecipeFile, tmp_path: Path) -> None:
    bias = load_file(WEIGHTS)["fc.bias"].clone()
    bias[3] = torch.nan
    path = checkpoint(tmp_path / "nan.safetensors", **{"fc.bias": bias})
    line = refused_checkpoint(refused, recipe_file, "resnet20", path)
    assert "'fc.bias' has NaN or infinite values" in line


def test_an_onnx_file_with_nan(demo_onnx: Path, refused: Refused, recipe_file: RecipeFile, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    weight = next(w for w in model.graph.initializer if w.name == "layer1.0.conv1.bias")
    weight.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(weight), np.nan), weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    for command in (
        ("calibrate", "nan.onnx", "--images", demo.CALIBRATION, "-o", "t.json"),
        ("check", demo_onnx, "--reference", "nan.onnx", "--images", demo.TEST),
        ("compile", "nan.onnx", "--target", "cpu"),
        ("build", recipe_file(model=f'onnx = "{tmp_path / "nan.onnx"}"')),
        ("build", recipe_file(model=f'onnx = "{tmp_path / "nan.onnx"}"'), "--precision", "fp32"),
    ):
        assert "'layer1.0.conv1.bias' has NaN or infinite values" in refused(2, *command)


# Tables.


@pytest.mark.parametrize(
    "change",
    [
        {"images": None},
        {"images": {}},
        {"images": {"sha256": [1, 2]}},
        {"preprocessing": None},
        {"preprocessing": {}},
        {"method": 5},
        {"ranges": []},
        {"ranges": {"relu": 1}},
        {"ranges": {"relu": {"minimum": 0}}},
        {"ranges": {}},
        {"format": 2},
        {"extra": 1},
    ],
)
def test_a_damaged_table(
    change: dict[str, object], demo_onnx: Path, few: Path, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    table = tmp_path / "t.json"
    table.write_text(json.dumps({**json.loads(table.read_text()), **change}))
    refused(2, "quantize", demo_onnx, "--table", table, "--images", few / "calibration", "-o", "q.onnx")
    table.write_text("[" * 100_000)
    assert "json_depth is 64" in refused(2, "quantize", demo_onnx, "--table", table, "-o", "q.onnx")
    table.write_text("[" * 60)
    assert "not a calibration table" in refused(2, "quantize", demo_onnx, "--table", table, "-o", "q.onnx")


def test_a_table_of_images_that_were_prepared_otherwise(
    demo_onnx: Path, few: Path, cli_json: CliJson, refused: Refused, tmp_path: Path
) -> None:
    cli_json("calibrate", demo_onnx, "--images", few / "calibration", "-o", "t.json")
    table = tmp_path / "t.json"
    document = json.loads(table.read_text())
    document["preprocessing"]["interpolation"] = "bicubic"
    table.write_text(json.dumps(document))
    for command in (
        ("quantize", "-o", "q.onnx"),
        ("sensitivity",),
        ("export-cache", "--trt-version", "8502", "-o", "c.cache"),
    ):
        name, *rest = command
        line = refused(2, name, demo_onnx, "--table", table, *rest)
        assert "made with interpolation bicubic" in line and "has bilinear: run `edge-resnet calibrate`" in line


# Bundles.


def flipped(data: bytes) -> bytes:
    place = data.index(b"edge_resnet.labels")
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def newer(data: bytes) -> bytes:
    body = data[: data.rindex(b"edge-resnet bundle 1")]
    return body + f"edge-resnet bundle 2\nsha256 {hashlib.sha256(body).hexdigest()}\n".encode()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flipped, "its bytes are not the ones that were written (SHA-256 differs): copy it again"),
        (lambda data: data[: len(data) // 2], "cut short, or a zip of another kind: copy it again, whole"),
        (lambda data: data[:-1], "cut short or changed in its last bytes: copy it again"),
        (lambda data: b"", "not an edge-resnet bundle: give a .edge file"),
        (newer, "made by a newer edge-resnet: format 2, this one reads 1: upgrade edge-resnet"),
    ],
    ids=["flipped", "half", "one byte less", "empty", "newer"],
)
def test_a_damaged_bundle_is_refused_by_every_command(
    damage: Callable[[bytes], bytes], reason: str, demo_bundle: Path, sneaker: Path, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "bad.edge").write_bytes(damage(demo_bundle.read_bytes()))
    for command in (
        ("classify", "bad.edge", sneaker),
        ("info", "bad.edge"),
        ("info", "bad.edge", "--verify", "--json"),
        ("bench", "bad.edge", "--json"),
        ("check", "bad.edge", "--images", demo.TEST, "--json"),
        ("compile", "bad.edge", "--target", "rtx-30"),
    ):
        assert refused(2, *command) == f"bundle 'bad.edge': {reason}"


# Targets and recipes.


def test_an_unknown_target_is_refused_by_every_command(
    demo_bundle: Path, demo_onnx: Path, sneaker: Path, recipe_file: RecipeFile, refused: Refused
) -> None:
    for command in (
        ("build", recipe_file(build='targets = ["rtx30"]'), "--target", "rtx-3O"),
        ("build", recipe_file(build='targets = ["rtx-3O"]')),
        ("compile", demo_onnx, "--target", "rtx-3O"),
        ("check", demo_bundle, "--images", demo.TEST, "--target", "rtx-3O"),
        ("classify", demo_bundle, sneaker, "--target", "rtx-3O"),
        ("bench", demo_bundle, "--target", "rtx-3O"),
    ):
        line = refused(2, *command)
        assert line.startswith("unknown target 'rtx-3O': did you mean 'rtx-30'? choose one of cpu, jetson-")


@pytest.mark.parametrize(
    ("key", "misspelt", "advice"),
    [
        ("effort", "efort", "unknown key 'efort' in [quantize]: did you mean 'effort'?"),
        ("size", "sizes", "unknown key 'sizes': did you mean 'size'?"),
        ("[calibration]", "[callibration]", "unknown table [callibration]: did you mean 'calibration'?"),
        ("arch", "architecture", "unknown key 'architecture' in [model]"),
    ],
)
def test_a_misspelt_recipe_says_the_nearest_right_word(
    key: str, misspelt: str, advice: str, recipe_file: RecipeFile, refused: Refused
) -> None:
    path = recipe_file()
    path.write_text(path.read_text().replace(f"\n{key}", f"\n{misspelt}", 1))
    line = refused(2, "build", path)
    assert str(path) in line and advice in line


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--size", "28", "--mean", ".5"], "the preprocessing is incomplete"),
        (["--size", "28", "--mean", "a,b,c", "--std", "1"], "--mean is 'a,b,c': give numbers with commas"),
        (["--size", "28", "--mean", "nan", "--std", "1"], "--mean is 'nan': give numbers with commas"),
        (["--size", "28", "--mean", "128", "--std", "64"], "give it for pixels in 0..1"),
        (["--input-shape", "inf,28,1", "--mean", ".5", "--std", ".5"], "--input-shape is 'inf,28,1'"),
        (["--input-shape", "28,28", "--mean", ".5", "--std", ".5"], "give height, width and 1 or 3 channels"),
        (["--input-shape", "28,28,3", "--mean", ".5", "--std", ".5"], "has 3 channels, the preprocessing 1"),
        (["--preprocessing", "imagnet"], "unknown preprocessing 'imagnet': give one of imagenet, fashion-mnist"),
        (["--preprocessing", "imagenet", "--mean", "0.5"], "--preprocessing and --mean contradict each other"),
        (["--preprocessing", "imagenet", "--size", "96"], "preprocessing 'imagenet' resizes to 256 and crops 224×224"),
        ([], "needs the preprocessing: give --preprocessing"),
    ],
)
def test_preprocessing_flags_that_are_refused(flags: list[str], reason: str, refused: Refused) -> None:
    assert reason in refused(2, "export", "--arch", "resnet20", "-o", "x.onnx", *flags)


def test_a_size_may_stand_beside_a_preprocessing_that_crops_nothing(cli_json: CliJson) -> None:
    cli_json("export", "--arch", "resnet20", "--preprocessing", "fashion-mnist", "--size", "40", "-o", "x.onnx")
    assert cli_json("info", "x.onnx")["preprocessing"]["size"] == [40, 40]


def test_an_image_that_five_halvings_leave_nothing_of_is_refused(refused: Refused, tmp_path: Path) -> None:
    least = "resnet18 takes height and width of at least 32"
    for flags in (
        ["--size", "16", "--mean", ".5,.5,.5", "--std", "1,1,1"],
        ["--float-input", "--input-shape", "64,31,3"],
    ):
        assert refused(2, "export", "--arch", "resnet18", "-o", "x.onnx", *flags).endswith(least)


# The place of the output.


@contextmanager
def locked_folder() -> Iterator[Path]:
    """A folder that may be read but not written; for root, permissions count only as another user."""
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def written_to(folder: Path) -> list[tuple[object, ...]]:
    """A command line for each command that writes a file; whatever else is wrong with it would be noticed later."""
    return [
        ("build", "-o", folder / "x.edge"),
        ("export", "--arch", "bogus", "-o", folder / "x.onnx"),
        ("calibrate", "missing.onnx", "--images", "missing", "-o", folder / "t.json"),
        ("export-cache", "missing.onnx", "--table", "missing", "--trt-version", "8502", "-o", folder / "c.cache"),
        ("import-cache", "missing.onnx", "--cache", "missing", "--images", "missing", "-o", folder / "t.json"),
        ("quantize", "missing.onnx", "--table", "missing", "-o", folder / "q.onnx"),
        ("compile", "missing.onnx", "--target", "cpu", "-o", folder / "x.engine"),
        ("init", folder),
    ]


def test_a_place_that_cannot_be_written_is_noticed_before_any_work(cli: Cli, refused: Refused, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for command in written_to(missing):  # this also loads what the other user below may not be allowed to read
        line = refused(2, *command)
        assert line.startswith(f"cannot write '{missing}/")
        assert line.endswith(f"the folder '{missing}' does not exist: create it first")
    with locked_folder() as folder:
        for command in written_to(folder)[:-1]:
            result = cli(*command)
            assert result.returncode == 2
            assert result.stderr.startswith(f"edge-resnet: cannot write '{folder}/")
            assert result.stderr.endswith(f"choose another place, or change the permissions of '{folder}'\n")
        assert os.listdir(folder) == []


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_quota_that_is_reached_while_writing_leaves_the_old_bundle(
    recipe_file: RecipeFile, refused: Refused, tmp_path: Path
) -> None:
    recipe = recipe_file(build='output = "model.edge"')
    (tmp_path / "model.edge").write_bytes(b"an older bundle")
    with no_file_larger_than(1_000_000):  # an engine alone is smaller
        line = refused(2, "build", recipe)
    assert "model.edge': the file would be larger than is allowed there" in line


FULL_DISK = """
import os, subprocess, sys
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], check=True)
os.chdir(folder)
open("model.onnx", "wb").write(b"an older one")
command = ["export", "--arch", "resnet20", "--preprocessing", "fashion-mnist", "-o", "model.onnx", "--json"]
done = subprocess.run([sys.argv[2], *command], capture_output=True, text=True)
print(done.returncode, repr(done.stdout), os.listdir(), open("model.onnx", "rb").read())
print(done.stderr, end="")
"""


def can_mount() -> bool:
    try:
        probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="this host lets nobody mount a file system in a namespace")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    edge_resnet = Path(sys.executable).with_name("edge-resnet")
    command = [
        "unshare",
        "--map-root-user",
        "--mount",
        sys.executable,
        "-c",
        FULL_DISK,
        str(tmp_path),
        str(edge_resnet),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "2 '' ['model.onnx'] b'an older one'",
        "edge-resnet: cannot write 'model.onnx': no space left on the device: free some, or choose another place",
    ]
