"""The compiler's flags, which `build` and `compile` share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from edge_resnet.engine_options import HARDWARE, parse_batches
from edge_resnet.engines.options import BuildOptions, HardwareCompatibility
from edge_resnet.errors import EngineError

Batch = Annotated[
    str | None,
    typer.Option("--batch", metavar="MIN,OPT,MAX", help="Batches that the engine takes; fastest at OPT. [1,1,8]"),
]
Workspace = Annotated[
    int | None,
    typer.Option("--workspace", metavar="MB", help="Memory in MiB that a kernel may use."),
]
Level = Annotated[
    int | None, typer.Option("--optimization-level", metavar="0..5", help="How long to search for fast kernels.")
]
Tf32 = Annotated[
    bool | None, typer.Option("--tf32/--no-tf32", help="Let FP32 layers round to TF32.", show_default=False)
]
Compatible = Annotated[
    bool | None,
    typer.Option(
        "--version-compatible/--no-version-compatible", help="For newer TensorRT versions too.", show_default=False
    ),
]
Hardware = Annotated[
    str | None, typer.Option("--hardware-compatible", metavar="|".join(HARDWARE), help="GPUs beside this very one.")
]
Refit = Annotated[
    bool | None, typer.Option("--refit/--no-refit", help="Weights can be replaced later.", show_default=False)
]
Strip = Annotated[
    bool | None,
    typer.Option("--strip-weights/--no-strip-weights", help="Store the engine without weights.", show_default=False),
]
Dla = Annotated[
    int | None, typer.Option("--dla", metavar="N", help="Use this deep-learning accelerator; give one --batch size.")
]


@dataclass(frozen=True)
class Flags:
    """What was given on the command line; None: nothing."""

    batch: str | None
    workspace: int | None
    optimization_level: int | None
    tf32: bool | None
    version_compatible: bool | None
    hardware_compatible: str | None
    refit: bool | None
    strip_weights: bool | None
    dla: int | None

    def over(self, options: BuildOptions) -> BuildOptions:
        """The options with what was given in their place.

        Raises:
            EngineError: a value is out of range.
        """
        given = {
            "batches": None if self.batch is None else parse_batches(self.batch),
            "workspace_mb": self.workspace,
            "optimization_level": self.optimization_level,
            "tf32": self.tf32,
            "version_compatible": self.version_compatible,
            "hardware_compatibility": None if self.hardware_compatible is None else _level(self.hardware_compatible),
            "refit": self.refit,
            "strip_weights": self.strip_weights,
            "dla_core": self.dla,
        }
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(options, **chosen)


def _level(name: str) -> HardwareCompatibility:
    if name not in HARDWARE:
        raise EngineError(f"--hardware-compatible is '{name}': choose one of {', '.join(HARDWARE)}")
    return HardwareCompatibility(name)
