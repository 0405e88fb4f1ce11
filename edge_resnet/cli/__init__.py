"""The command line: one module a command, each a thin edge over one public function."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer

from edge_resnet.errors import EdgeResnetError

COMMANDS = (
    "build",
    "init",
    "models",
    "export",
    "calibrate",
    "export-cache",
    "import-cache",
    "sensitivity",
    "prune",
    "quantize",
    "compile",
    "export-trtexec",
    "export-triton",
    "check",
    "classify",
    "explain",
    "embed",
    "bench",
    "compare",
    "report",
    "live",
    "estimate",
    "tune",
    "keygen",
    "sign",
    "verify",
    "push",
    "pull",
    "registry",
    "rollout",
    "info",
    "devices",
    "cache",
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
    app.command(_name)(import_module(f"edge_resnet.cli.{_name.replace('-', '_')}_command").run)


def main() -> None:
    """Runs the command line; an error that the user can mend is one line on stderr and its exit code."""
    try:
        raise SystemExit(app(prog_name="edge-resnet", standalone_mode=False))
    except EdgeResnetError as error:
        _say_why(str(error))
        raise SystemExit(error.exit_code) from None
    except _UsageError as error:
        _say_why(_usage(error))
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        _say_why(f"this command needs {error.name}, which is not installed: {_EXTRAS[error.name]}")
        raise SystemExit(4) from None
    except typer.Abort:
        raise SystemExit(130) from None  # Ctrl-C: what the shell reports for SIGINT


def _say_why(message: str) -> None:
    """The one line on stderr; a path or a compiler's own words may have brought line breaks along."""
    if message:
        print(f"edge-resnet: {' '.join(message.split())}", file=sys.stderr)


def _usage(error: Any) -> str:
    """What is wrong with the arguments, and the command's example; empty when there were none, and the help was shown."""
    message = error.format_message().rstrip(".")
    if not message:
        return ""
    name = next((word for word in sys.argv[1:2] if word in COMMANDS), None)
    if name is None:
        return f"{message}: see `edge-resnet --help`"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]  # a group has them
    wanted = [each.metavar for each in command.params if getattr(error, "option_name", None) in each.opts]
    value = f", {wanted[0]}" if wanted and wanted[0] and message.endswith("requires an argument") else ""
    return f"{message}{value}: see `edge-resnet {name} --help`; example: {_example(command.help)}"


def _example(text: str) -> str:
    """The one of a command's help, on one line."""
    return " ".join(text.partition("Example: ")[2].split())


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Base of what typer raises for wrong arguments; newer ones bring a click of their own, so it has no common address."""


_EXTRAS = {
    **dict.fromkeys(
        ("cyclonedx", "jinja2", "onnx", "onnx_ir", "packageurl", "safetensors", "torch"),
        "pip install 'edge-resnet[build]'",
    ),
    "matplotlib": "pip install 'edge-resnet[plots]'",
    "optuna": "pip install 'edge-resnet[tune]'",
    **dict.fromkeys(("starlette", "uvicorn"), "pip install 'edge-resnet[web]'"),
}
