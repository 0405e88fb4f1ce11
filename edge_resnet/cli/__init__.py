"""The command line: one module a command, each a thin edge over one public function."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from edge_resnet.errors import EdgeResnetError

COMMANDS = (
    "build",
    "init",
    "models",
    "export",
    "calibrate",
    "quantize",
    "compile",
    "check",
    "classify",
    "bench",
    "info",
    "devices",
)

app = typer.Typer(
    name="edge-resnet",
    help="Build, quantize, verify and run ResNets in INT8 on NVIDIA Jetson, RTX and CPUs.\n\n"
    "Start with `edge-resnet build --precision int8`, which builds the demo, then `edge-resnet init` for your own model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _name in COMMANDS:
    app.command(_name)(import_module(f"edge_resnet.cli.{_name}_command").run)


def main() -> None:
    """Runs the command line; an error that the user can mend is one line on stderr and its exit code."""
    try:
        app()
    except EdgeResnetError as error:
        print(f"edge-resnet: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        print(
            f"edge-resnet: this command needs {error.name}, which is not installed: {_EXTRAS[error.name]}",
            file=sys.stderr,
        )
        raise SystemExit(4) from None
    except BrokenPipeError:
        raise SystemExit(141) from None  # whoever read our output has gone: what the shell reports for SIGPIPE


_EXTRAS = dict.fromkeys(("onnx", "onnx_ir", "safetensors", "torch"), "pip install 'edge-resnet[build]'")
