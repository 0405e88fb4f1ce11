"""The names that users import: the list, the namespace and what type checkers see are one."""

from __future__ import annotations

import ast
import importlib
import inspect
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import edge_resnet
import edge_resnet.calibration
import edge_resnet.camera
import edge_resnet.engines
import edge_resnet.models
from edge_resnet import errors


def test_the_list_is_the_namespace() -> None:
    assert sorted(edge_resnet.__all__) == edge_resnet.__all__
    assert set(dir(edge_resnet)) == {*edge_resnet.__all__, "__version__"}
    for name in edge_resnet.__all__:
        found = getattr(edge_resnet, name)
        assert found.__name__ == name
        assert found.__module__.startswith("edge_resnet.")
        assert inspect.getdoc(found), f"{name} has no docstring"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(edge_resnet.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(seen) == set(edge_resnet.__all__)
    for name, module in seen.items():
        assert module is not None
        assert getattr(importlib.import_module(module), name) is getattr(edge_resnet, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edge_resnet' has no attribute 'Classifer'"):
        edge_resnet.Classifer  # noqa: B018
    with pytest.raises(ImportError):
        from edge_resnet import Classifer  # type: ignore[attr-defined] # noqa: F401


@pytest.mark.parametrize(
    "package", [edge_resnet.calibration, edge_resnet.camera, edge_resnet.engines, edge_resnet.models]
)
def test_the_other_packages_have_what_they_list(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert len(set(names)) == len(names) > 0
    for name in names:
        assert getattr(getattr(package, name), "__name__", name) == name


def test_the_version_is_that_of_the_package() -> None:
    assert edge_resnet.__version__ == version("edge-resnet")


def test_the_command_is_installed() -> None:
    (command,) = (point for point in entry_points(group="console_scripts") if point.name == "edge-resnet")
    assert command.value == "edge_resnet.cli:main"


def test_every_error_has_its_documented_exit_code() -> None:
    drawn = inspect.getdoc(errors) or ""
    classes = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}
    for name, kind in classes.items():
        assert issubclass(kind, edge_resnet.EdgeResnetError)
        assert name in drawn, f"{name} is not in the tree"
        assert kind.exit_code == {
            "GateError": 3,
            "TrustError": 3,
            "UnavailableError": 4,
            "CameraUnavailableError": 4,
        }.get(name, 2)
