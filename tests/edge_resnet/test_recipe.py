"""The recipe: what it means, and one clear line for each way to get it wrong."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from edge_resnet.calibration.observers import OBSERVERS
from edge_resnet.calibration.quantize import chain_wanted
from edge_resnet.engine_options import FLAGS
from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.errors import OutputError, RecipeError
from edge_resnet.preprocessing import NAMED, Preprocessing
from edge_resnet.recipe import (
    METHODS,
    AccuracyRecipe,
    BuildRecipe,
    CalibrationRecipe,
    ModelRecipe,
    PruneRecipe,
    QuantizeRecipe,
    Recipe,
    load_recipe,
    write_recipe_template,
)

ENGINE_KEYS = ("workspace_mb", "optimization_level", "dla_core")
"""Those of ``[engine]`` that the template leaves out."""
MODEL = '[model]\narch = "resnet20"\nweights = "weights.pth"\n'
ONNX = '[model]\nonnx = "model.onnx"\n'
PREPROCESSING = """[preprocessing]
size = 32
crop = "none"
interpolation = "bilinear"
color = "rgb"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""
CALIBRATION = '[calibration]\nimages = "images"\n'
LEAST = MODEL + PREPROCESSING + CALIBRATION


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the recipes here name."""
    for name in ("weights.pth", "model.onnx", "labels.txt", "test.csv"):
        (tmp_path / name).touch()
    (tmp_path / "images").mkdir()
    return tmp_path


def load(folder: Path, text: str) -> Recipe:
    path = folder / "edge-resnet.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def refusal(folder: Path, text: str) -> str:
    """What load_recipe says after the name of the file."""
    with pytest.raises(RecipeError) as caught:
        load(folder, text)
    message = str(caught.value)
    start = str(folder / "edge-resnet.toml")
    assert message.startswith(start) and "\n" not in message
    return message.removeprefix(start).removeprefix(":").lstrip()


def test_the_least_recipe_has_the_documented_defaults(folder: Path) -> None:
    assert load(folder, LEAST) == Recipe(
        model=ModelRecipe("resnet20", folder / "weights.pth", onnx=None, classes=None, labels=None),
        preprocessing={
            "size": 32,
            "crop": "none",
            "interpolation": "bilinear",
            "color": "rgb",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.25, 0.25, 0.25],
        },
        calibration=CalibrationRecipe(folder / "images", limit=512, method="mse"),
        quantize=QuantizeRecipe(effort="standard", keep_float=(), refine=None),
        accuracy=AccuracyRecipe(images=None, max_drop=1.0, strict=False),
        build=BuildRecipe(precision="int8", targets=("cpu",), output=folder / "model.edge"),
        engine=BuildOptions(),
    )


def test_every_key_is_read(folder: Path) -> None:
    text = f"""{MODEL}classes = 7
labels = "labels.txt"
shortcut = "C"
{PREPROCESSING}{CALIBRATION}limit = 64
method = "percentile"
[quantize]
effort = "best"
keep_float = ["conv1", "fc"]
refine = ["exact-input", "bias"]
[accuracy]
images = "test.csv"
max_drop = 2
strict = true
[build]
precision = "fp16"
targets = ["rtx", "jetson-orin-nano"]
output = "out/shelf.edge"
[engine]
batches = [1, 4, 16]
workspace_mb = 512
optimization_level = 0
tf32 = true
version_compatible = true
hardware_compatibility = "ampere-plus"
refit = true
strip_weights = true
"""
    recipe = load(folder, text)
    assert recipe.model == ModelRecipe("resnet20", folder / "weights.pth", None, 7, folder / "labels.txt", shortcut="C")
    assert recipe.calibration == CalibrationRecipe(folder / "images", 64, "percentile")
    assert recipe.quantize == QuantizeRecipe("best", ("conv1", "fc"), ("exact-input", "bias"))
    assert recipe.accuracy == AccuracyRecipe(folder / "test.csv", 2.0, True)
    assert type(recipe.accuracy.max_drop) is float
    assert recipe.build == BuildRecipe("fp16", ("rtx", "jetson-orin-nano"), folder / "out/shelf.edge")
    assert recipe.engine == BuildOptions(
        BatchRange(1, 4, 16), 512, 0, True, True, HardwareCompatibility.AMPERE_PLUS, refit=True, strip_weights=True
    )


def test_a_dla_takes_one_size_of_batch(folder: Path) -> None:
    recipe = load(folder, f"{LEAST}[engine]\nbatches = [2, 2, 2]\ndla_core = 0\n")
    assert recipe.engine == BuildOptions(BatchRange(2, 2, 2), dla_core=0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("workspace = 1", "unknown key 'workspace' in [engine]: did you mean 'workspace_mb'?"),
        ("timing_cache = 1", "unknown key 'timing_cache' in [engine]: the keys are batches, workspace_mb, "),
        ("batches = [1, 8]", "'batches' in [engine] is [1, 8]: give a list of 3 whole numbers, each 1 or more"),
        ("batches = [1, 1, true]", "'batches' in [engine] is [1, 1, True]: give a list of 3 whole numbers"),
        ("batches = [1, 9, 8]", "[engine]: batches are 1,9,8: give smallest, typical and largest, rising"),
        ("workspace_mb = 0", "'workspace_mb' in [engine] is 0: give a whole number, 1 or more"),
        ("optimization_level = 6", "[engine]: optimization_level is 6: give a whole number from 0 to 5"),
        ("optimization_level = -1", "'optimization_level' in [engine] is -1: give a whole number, 0 or more"),
        ('hardware_compatibility = "all"', "is 'all': choose one of none, same-compute-capability, ampere-plus"),
        ("dla_core = 0", "[engine]: dla_core is 0 and batches are 1,1,8: a DLA takes one size of batch"),
        ("dla_core = true", "'dla_core' in [engine] is true: give a whole number, 0 or more"),
        ("tf32 = 1", "'tf32' in [engine] is 1: give true or false"),
    ],
)
def test_an_engine_table_that_cannot_be_used(folder: Path, line: str, message: str) -> None:
    assert message in refusal(folder, f"{LEAST}[engine]\n{line}\n")


def test_no_refinement_is_another_chain_than_the_default(folder: Path) -> None:
    assert load(folder, f"{LEAST}[quantize]\nrefine = []\n").quantize.refine == ()


def test_an_onnx_file_may_carry_its_own_preprocessing(folder: Path) -> None:
    recipe = load(folder, ONNX + CALIBRATION)
    assert recipe.model == ModelRecipe(onnx=folder / "model.onnx")
    assert recipe.preprocessing == {}


def test_the_preprocessing_table_is_what_preprocessing_takes(folder: Path) -> None:
    assert Preprocessing.from_table(load(folder, LEAST).preprocessing).size == (32, 32)


def test_paths_are_relative_to_the_recipe_not_to_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "edge-resnet.toml").write_text(LEAST)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    recipe = load_recipe(Path("../edge-resnet.toml"))
    assert recipe.model.weights == Path("../weights.pth")
    assert recipe.build.output == Path("../model.edge")


def test_absolute_paths_stay(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    weights = tmp_path_factory.mktemp("store") / "a.pth"
    weights.touch()
    assert load(folder, LEAST.replace("weights.pth", str(weights))).model.weights == weights


def test_a_byte_order_mark_and_windows_line_ends(folder: Path) -> None:
    (folder / "edge-resnet.toml").write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert load_recipe(folder / "edge-resnet.toml") == load(folder, LEAST)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[accuracy]\nmax_dorp = 1.0", "unknown key 'max_dorp' in [accuracy]: did you mean 'max_drop'?"),
        ("[quantize]\nprecision = 'int8'", "unknown key 'precision' in [quantize]: the keys are effort, keep_float"),
        (
            "[quantize]\nrefine = 'round'",
            "'refine' in [quantize] is 'round': give a list of strings, each once and not empty",
        ),
        ("[acuracy]\nmax_drop = 1.0", "unknown table [acuracy]: did you mean 'accuracy'?"),
        (
            "[zzz]",
            "unknown table [zzz]: the tables are model, preprocessing, calibration, prune, quantize, accuracy, build",
        ),
        ("[[build]]", "'build' is no table: put keys under one of [model], [preprocessing], [calibration], "),
        ("[build]\nprecision = 'int4'", "'precision' in [build] is 'int4': choose one of int8, fp8, fp16, bf16, fp32"),
        ("[build]\nprecision = 8", "'precision' in [build] is 8: choose one of int8, fp8, fp16, bf16, fp32"),
        ("[build]\nprecision = 'INT8'", "'precision' in [build] is 'INT8': choose one of int8, fp8, fp16, bf16, fp32"),
        ("[quantize]\neffort = 'slow'", "'effort' in [quantize] is 'slow': choose one of fast, standard, best"),
        ("[build]\ntargets = 'cpu'", "'targets' in [build] is 'cpu': give a list of strings"),
        ("[build]\ntargets = ['cpu', 1]", "'targets' in [build] is ['cpu', 1]: give a list of strings"),
        (
            "[build]\ntargets = ['cpu', 'cpu']",
            "'targets' in [build] is ['cpu', 'cpu']: give a list of strings, each once",
        ),
        ("[build]\ntargets = []", "'targets' in [build] is []: give at least one, such as \"cpu\""),
        ("[build]\noutput = ''", "'output' in [build] is '': give a string, not empty"),
        ("[build]\noutput = true", "'output' in [build] is true: give a string, not empty"),
        ("[accuracy]\nstrict = 1", "'strict' in [accuracy] is 1: give true or false"),
        ("[accuracy]\nstrict = 'yes'", "'strict' in [accuracy] is 'yes': give true or false"),
        ("[accuracy]\nmax_drop = true", "'max_drop' in [accuracy] is true: give a number of points from 0 to 100"),
        ("[accuracy]\nmax_drop = -1", "'max_drop' in [accuracy] is -1: give a number of points from 0 to 100"),
        ("[accuracy]\nmax_drop = nan", "'max_drop' in [accuracy] is nan: give a number of points from 0 to 100"),
        ("[accuracy]\nmax_drop = inf", "'max_drop' in [accuracy] is inf: give a number of points from 0 to 100"),
        ("[accuracy]\nmax_drop = '1'", "'max_drop' in [accuracy] is '1': give a number of points from 0 to 100"),
        ("[accuracy]\nimages = 2024-01-01", "'images' in [accuracy] is datetime.date(2024, 1, 1): give a string"),
    ],
)
def test_a_wrong_line_is_named(text: str, message: str, folder: Path) -> None:
    assert refusal(folder, f"{LEAST}{text}\n").startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('arch = "resnet20"\n', "", "[model] has weights: give arch and weights, or onnx alone"),
        ('weights = "weights.pth"\n', "", "[model] has arch: give arch and weights, or onnx alone"),
        (MODEL, "", "[model] names no model: give arch and weights, or onnx alone"),
        (
            "[model]\n",
            '[model]\nonnx = "model.onnx"\n',
            "[model] has arch and weights and onnx: give arch and weights, or",
        ),
        ('weights = "weights.pth"\n', 'onnx = "model.onnx"\n', "[model] has arch and onnx: give arch and weights, or"),
        ("[model]\n", "[model]\nclasses = true\n", "'classes' in [model] is true: give a whole number, 1 or more"),
        ("[model]\n", "[model]\nclasses = 0\n", "'classes' in [model] is 0: give a whole number, 1 or more"),
        ("[model]\n", "[model]\nclasses = 10.0\n", "'classes' in [model] is 10.0: give a whole number, 1 or more"),
        ("[model]\n", "[model]\nshortcut = 2\n", "'shortcut' in [model] is 2: give a string, not empty"),
        ("[model]\n", 'arch = "resnet20"\n[model]\n', "'arch' is no table: put keys under one of [model], "),
        (PREPROCESSING, "", "preprocessing lacks 'size': give all of size, "),
        (
            "interpolation",
            "interpolaton",
            "preprocessing has an unknown key 'interpolaton': did you mean 'interpolation'?",
        ),
        (CALIBRATION, "", "[calibration] lacks 'images': give a folder of images, or a CSV file of path,label"),
        (CALIBRATION, CALIBRATION + "limit = 0\n", "'limit' in [calibration] is 0: give a whole number, 1 or more"),
        (CALIBRATION, CALIBRATION + "limit = '9'\n", "'limit' in [calibration] is '9': give a whole number, 1 or more"),
        (
            CALIBRATION,
            CALIBRATION + "method = 'kl'\n",
            "'method' in [calibration] is 'kl': choose one of minmax, percentile, mse, entropy, moving-average",
        ),
    ],
)
def test_a_wrong_or_missing_key_of_the_needed_tables(old: str, new: str, message: str, folder: Path) -> None:
    assert old in LEAST
    assert refusal(folder, LEAST.replace(old, new, 1)).startswith(message)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            'include_top = false\npooling = "avg"',
            "[model] has onnx and pooling, which is for arch: an ONNX file pools or",
        ),
        ('shortcut = "B"', "[model] has onnx and shortcut, which is for arch: leave one out"),
    ],
)
def test_what_an_onnx_file_has_no_use_for(key: str, message: str, folder: Path) -> None:
    assert refusal(folder, f"{ONNX}{key}\n{CALIBRATION}").startswith(message)


@pytest.mark.parametrize(
    ("text", "missing", "key"),
    [
        (LEAST, "weights.pth", "'weights' in [model]"),
        (ONNX + CALIBRATION, "model.onnx", "'onnx' in [model]"),
        (LEAST.replace("[model]\n", '[model]\nlabels = "labels.txt"\n'), "labels.txt", "'labels' in [model]"),
        (LEAST, "images", "'images' in [calibration]"),
        (LEAST + '[accuracy]\nimages = "test.csv"\n', "test.csv", "'images' in [accuracy]"),
    ],
)
def test_a_missing_file_is_named_with_its_key(text: str, missing: str, key: str, folder: Path) -> None:
    load(folder, text)
    (folder / missing).rename(folder / "moved")
    message = refusal(folder, text)
    assert message.startswith(f"{key} is '{missing}': give a ")
    assert str(folder / missing) in message


def test_a_folder_for_a_file_and_a_file_for_a_folder(folder: Path) -> None:
    assert "'weights' in [model] is 'images'" in refusal(folder, LEAST.replace("weights.pth", "images"))
    assert "'images' in [calibration] is 'labels.txt'" in refusal(folder, LEAST.replace('"images"', '"labels.txt"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\narch = resnet20\n", "(at line 2, column 8)"),
        ("[model]\n[model]\n", "(at line 2, column 7)"),
        ("[model]\narch = 'a'\narch = 'b'\n", "(at line 3, "),
    ],
)
def test_a_syntax_error_tells_the_line(text: str, message: str, folder: Path) -> None:
    said = refusal(folder, text)
    assert said.startswith("is no valid TOML: ") and message in said


def test_a_file_that_is_no_text(folder: Path) -> None:
    path = folder / "edge-resnet.toml"
    path.write_bytes(b"[model]\narch = '\xff'\n")
    with pytest.raises(
        RecipeError, match=r"is no UTF-8 text \(byte 16\): save it as UTF-8; if it is a checkpoint, name it"
    ):
        load_recipe(path)


def test_a_missing_recipe_and_a_folder(folder: Path) -> None:
    with pytest.raises(RecipeError, match="recipe.toml does not exist: write one with 'edge-resnet init'"):
        load_recipe(folder / "recipe.toml")
    with pytest.raises(RecipeError, match=r"images cannot be read \(Is a directory\): give a recipe file"):
        load_recipe(folder / "images")


def test_the_template_loads_once_its_files_exist(tmp_path: Path) -> None:
    path = write_recipe_template(tmp_path)
    assert path == tmp_path / "edge-resnet.toml"
    with pytest.raises(RecipeError, match="'weights' in .* is 'resnet50.pth': give a file that exists"):
        load_recipe(path)
    (tmp_path / "resnet50.pth").touch()
    (tmp_path / "images" / "calibration").mkdir(parents=True)
    (tmp_path / "images" / "test").mkdir()
    recipe = load_recipe(path)
    assert recipe == Recipe(
        model=ModelRecipe("resnet50", tmp_path / "resnet50.pth"),
        preprocessing=recipe.preprocessing,
        calibration=CalibrationRecipe(tmp_path / "images" / "calibration"),
        accuracy=AccuracyRecipe(tmp_path / "images" / "test"),
        build=BuildRecipe(output=tmp_path / "model.edge"),
    )
    assert Preprocessing.from_table(recipe.preprocessing) == NAMED["imagenet"]


def test_what_the_template_comments_out_loads_too(tmp_path: Path) -> None:
    path = write_recipe_template(tmp_path)
    lines = path.read_text().splitlines()
    optional = [
        line for line in lines if line.startswith("# ") and " = " in line and line[2:].split(" = ")[0].isidentifier()
    ]
    keys = [line[2:].split(" = ")[0] for line in optional]
    model = ["onnx", "classes", "labels", "include_top", "pooling", "shortcut"]
    prune = ["macs", "sparsity", "rounds", "steps", "images", "limit"]
    assert keys == [*model, *prune, "refine", *ENGINE_KEYS]
    path.write_text("\n".join(line[2:] if line in optional else line for line in lines if "resnet50.pth" not in line))
    path.write_text(
        path.read_text()
        .replace('arch = "resnet50"\n', "")
        .replace('shortcut = "B"\n', "")
        .replace("# [prune]", "[prune]")
        .replace("[1, 1, 8]", "[1, 1, 1]")
    )
    for name in ("resnet50.onnx", "labels.txt"):
        (tmp_path / name).touch()
    for name in ("calibration", "test", "train"):
        (tmp_path / "images" / name).mkdir(parents=True)
    recipe = load_recipe(path)
    assert recipe.prune == PruneRecipe(0.7, "2:4", images=tmp_path / "images" / "train", limit=5000)
    assert recipe.model == ModelRecipe(onnx=tmp_path / "resnet50.onnx", classes=1000, labels=tmp_path / "labels.txt")
    assert recipe.quantize.refine == chain_wanted("standard", ("exact-input", "round"))
    assert recipe.engine == BuildOptions(BatchRange(1, 1, 1), workspace_mb=1024, optimization_level=3, dla_core=0)


def test_the_template_shows_every_key_and_every_choice(tmp_path: Path) -> None:
    text = write_recipe_template(tmp_path).read_text()
    recipes = (ModelRecipe, Preprocessing, CalibrationRecipe, PruneRecipe, QuantizeRecipe, AccuracyRecipe, BuildRecipe)
    for recipe in recipes:
        for field in fields(recipe):
            assert f"\n{field.name} = " in text or f"\n# {field.name} = " in text, field.name
    for key in FLAGS:
        assert f"\n{key} = " in text or f"\n# {key} = " in text, key
    words = "int8 fp16 fp32 minmax percentile mse fast standard best bilinear bicubic lanczos box nearest rgb bgr gray"
    assert [word for word in words.split() if f'"{word}"' not in text] == []


def test_a_recipe_is_never_overwritten(tmp_path: Path) -> None:
    path = write_recipe_template(tmp_path)
    path.write_text("mine")
    with pytest.raises(OutputError) as caught:
        write_recipe_template(tmp_path)
    assert str(caught.value) == (f"cannot write '{path}': it exists already: remove it first, or choose another folder")
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["edge-resnet.toml"]


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="/new' does not exist: create it first"):
        write_recipe_template(tmp_path / "new")


def test_the_methods_are_those_of_the_observers() -> None:
    assert set(METHODS) == set(OBSERVERS)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys, edge_resnet.recipe; print({'torch', 'onnx'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "set()", done.stderr
