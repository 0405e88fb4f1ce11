"""The compiler's options in a recipe and on the command line: their keys, their flags, and back to flags again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from edge_resnet.engines.jetpacks import never_with_python
from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError, RecipeError
from edge_resnet.toml_table import Table

FLAGS = {
    "batches": "--batch",
    "workspace_mb": "--workspace",
    "optimization_level": "--optimization-level",
    "tf32": "--tf32",
    "version_compatible": "--version-compatible",
    "hardware_compatibility": "--hardware-compatible",
    "refit": "--refit",
    "strip_weights": "--strip-weights",
    "dla_core": "--dla",
}
"""Key in ``[engine]``, which is a field of ``BuildOptions`` → flag of ``build`` and ``compile``."""
HARDWARE = tuple(level.value for level in HardwareCompatibility)


def read_engine_table(table: Table) -> BuildOptions:
    """Reads ``[engine]``.

    Raises:
        RecipeError: a key is unknown, or its value of another type or out of range.
    """
    table.check_names(list(FLAGS))
    sizes = table.counts("batches", 3)
    try:
        return BuildOptions(
            batches=BuildOptions.batches if sizes is None else BatchRange(*sizes),
            workspace_mb=table.count("workspace_mb", None),
            optimization_level=table.index("optimization_level"),
            tf32=table.flag("tf32", BuildOptions.tf32),
            version_compatible=table.flag("version_compatible", BuildOptions.version_compatible),
            hardware_compatibility=HardwareCompatibility(
                table.choice("hardware_compatibility", HARDWARE, BuildOptions.hardware_compatibility.value)
            ),
            refit=table.flag("refit", BuildOptions.refit),
            strip_weights=table.flag("strip_weights", BuildOptions.strip_weights),
            dla_core=table.index("dla_core"),
        )
    except EngineError as error:
        raise RecipeError(f"{table.path}: [{table.name}]: {error}") from error


def parse_batches(text: str) -> BatchRange:
    """Three numbers with commas between them, or one for an engine that takes just that batch.

    Raises:
        EngineError: they are no numbers, or do not rise.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.strip().isdecimal() for part in parts) or len(parts) not in (1, 3):
        raise EngineError(f"--batch is '{text}': give smallest, typical and largest, such as 1,1,8, or one number")
    return BatchRange(*(int(part) for part in (parts if len(parts) == 3 else parts * 3)))


def next_step(source: str, target: Target, options: BuildOptions) -> str:
    """The command that makes an engine of a file for a Jetson that is not here: on it or, where it has no Python for this
    package, anywhere.
    """
    chosen = f"{shlex.quote(source)} --target {target.name}{as_flags(options)}"
    if never_with_python(target):
        return f"edge-resnet export-trtexec {chosen} -o {target.name}"
    return f"edge-resnet compile {chosen}"


def as_flags(options: BuildOptions) -> str:
    """The options that were chosen, as the flags that choose them; with a space in front of each."""
    return flags_of(options.chosen)


def flags_of(chosen: Mapping[str, str]) -> str:
    """Options by name, with their values as text, as flags; with a space in front of each."""
    known = {name: value for name, value in chosen.items() if name in FLAGS}
    return "".join(f" {FLAGS[name]}" if value == "true" else f" {FLAGS[name]} {value}" for name, value in known.items())
