"""Pages of the site that are written elsewhere: READMEs, the help of the commands, and the docstrings of what users import.

Links in the Markdown are those that work beside the sources. Here they lead to a page, if the site has one, or to a copy of
the source.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from edge_resnet.cli import COMMANDS, app

ROOT = Path(__file__).resolve().parents[2]
READMES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "examples/README.md": "examples/README.md",
    "examples/ros2/README.md": "examples/ros2/README.md",
}
"""In the checkout → on the site."""
PACKAGES = ("edge_resnet", "edge_resnet.camera", "edge_resnet.models", "edge_resnet.calibration", "edge_resnet.engines")
LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and what they link to, and gives every page the site's links."""
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in READMES}
    texts |= {f"docs/{each.src_uri}": each.content_string for each in files.documentation_pages()}
    copied: set[str] = set()
    for name, text in texts.items():
        _put(files, config, _place(name), _linked(text, name, copied))
    for name in copied:
        _put(files, config, _source(name), (ROOT / name).read_text(encoding="utf-8"))
    _put(files, config, "commands.md", commands_page())
    _put(files, config, "python.md", python_page())
    return files


def _put(files: Files, config: MkDocsConfig, place: str, content: str) -> None:
    before = files.get_file_from_path(place)
    if before is not None:
        files.remove(before)
    files.append(File.generated(config, place, content=content))


def _place(name: str) -> str:
    """Where a page of the checkout stands on the site."""
    return READMES.get(name) or name.removeprefix("docs/")


def _source(name: str) -> str:
    """Where the copy of a source stands; as text, which a browser shows."""
    return f"source/{name}.txt"


def _linked(text: str, name: str, copied: set[str]) -> str:
    """The page with the site's links; notes what it needs copies of."""
    folder = PurePosixPath(name).parent
    here = PurePosixPath(_place(name)).parent

    def replaced(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        wanted = normpath(str(folder / target))
        if wanted in READMES or wanted.startswith("docs/"):
            place = _place(wanted)
        elif (ROOT / wanted).is_dir():  # there is nothing to show
            return label
        elif (ROOT / wanted).is_file():
            copied.add(wanted)
            place = _source(wanted)
        else:
            return found[0]  # which mkdocs will complain of
        return f"[{label}]({relpath(place, str(here))}{anchor})"

    return LINK.sub(replaced, text)


def commands_page() -> str:
    """The help of every command."""
    codes = "Exit codes are 0 done, 2 your input cannot be used, 3 a gate said no, 4 something is missing here."
    head = f"# Commands\n\nWhat `edge-resnet COMMAND --help` says. {codes}"
    return "\n\n".join([head, *map(_command, COMMANDS)]) + "\n"


def _command(name: str) -> str:
    command: Any = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # a group has them
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join(each.metavar or each.name.upper() for each in arguments)
    text, _, example = (command.help or "").partition("Example: ")
    lines = [f"## {name}", f"    edge-resnet {name} {usage}".rstrip(), text.strip()]
    if example:
        lines.append("Example:\n\n    " + " ".join(example.split()).strip("`"))
    rows = [_row(each) for each in command.params if each.name != "help"]
    return "\n\n".join([*lines, "| given | meaning | |\n|---|---|---|\n" + "\n".join(rows)])


def _row(parameter: Any) -> str:
    """A line of the table: what is given, what it means, and whether it must be or what it is otherwise."""
    if parameter.param_type_name == "argument":
        shown = parameter.metavar or parameter.name.upper()
    else:
        value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
        shown = ", ".join(parameter.opts) + value
    plain = isinstance(parameter.default, (int, float, str)) and not isinstance(parameter.default, bool)
    said = "required" if parameter.required else f"default {parameter.default}" if plain else ""
    help_text = " ".join((parameter.help or "").split())
    return f"| `{shown.replace('|', ' or ')}` | {help_text} | {said} |"


def python_page() -> str:
    """The docstrings of every public name."""
    parts = ["# Python\n\nEvery name that the packages list in `__all__`, from its docstring."]
    for package in PACKAGES:
        module = importlib.import_module(package)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        parts.append(f"## {package}\n\n{summary}")
        parts += [f"::: {package}.{name}" for name in module.__all__]
    return "\n\n".join(parts) + "\n"
