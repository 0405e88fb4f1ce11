"""Help and wrong arguments: every command has an example, and a misspelt option is one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_resnet.cli import COMMANDS
from edge_resnet.cli import _console as console

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Refused = Callable[..., str]
EDGE_RESNET = Path(sys.executable).with_name("edge-resnet")


def test_the_commands_are_those_of_the_design_and_more(cli: Cli) -> None:
    more = {
        "cache",
        "compare",
        "keygen",
        "sign",
        "verify",
        "push",
        "pull",
        "registry",
        "rollout",
        "live",
        "embed",
        "export-cache",
        "import-cache",
        "report",
        "explain",
        "sensitivity",
        "prune",
        "estimate",
        "tune",
        "export-trtexec",
        "export-triton",
    }
    assert (
        " ".join(command for command in COMMANDS if command not in more)
        == "build init models export calibrate quantize compile check classify bench info devices"
    )
    assert more < set(COMMANDS)
    shown = cli("--help").stdout
    assert all(re.search(rf"^\W*{command}\s", shown, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_and_its_options(command: str, cli: Cli) -> None:
    for flag in ("--help", "-h"):
        result = cli(command, flag)
        assert (result.returncode, result.stderr) == (0, "")
        assert f"edge-resnet {command}" in result.stdout.partition("Example:")[2]
        assert "--json" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_is_one_that_the_command_takes(command: str, cli: Cli) -> None:
    """Its options are real: with an unknown one added, that one is what is complained of."""
    shown = " ".join(cli(command, "--help").stdout.partition("Example:")[2].split("╭")[0].split())
    words = shown.split()[2:]
    result = cli(command, *words, "--bogus")
    assert result.returncode == 2
    says = rf"No such option: --bogus.*: see `edge-resnet {command} --help`; example: `edge-resnet {command}( .*)?`"
    assert re.fullmatch(f"edge-resnet: {says}\n", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["biuld"], "No such command 'biuld'.*: see `edge-resnet --help`"),
        (
            ["bench"],
            "Missing argument '.*': see `edge-resnet bench --help`; example: `edge-resnet bench model.edge .*`",
        ),
        (
            ["check", "x.edge"],
            "Missing option '--images'.*: see `edge-resnet check --help`; "
            "example: `edge-resnet check model.edge --images test/ --max-drop 0.5`",
        ),
        (
            ["check", "x.edge", "--images"],
            "Option '--images' requires an argument, DIR: see `edge-resnet check --help`; example: .*",
        ),
        (
            ["compile", "x.edge", "--hardware-compatible"],
            r"Option '.*' requires an argument, none\|same-compute-capability\|ampere-plus: see `edge-resnet compile .*",
        ),
        (
            ["bench", "x.edge", "--runs", "many", "--json"],
            "Invalid value for '--runs'.*: see `edge-resnet bench --help`; example: .*",
        ),
        (["bench", "x.edge", "--runs", "0"], "Invalid value for '--runs'.*: see `edge-resnet bench --help`; .*"),
        (["models", "resnet50"], "Got unexpected extra argument.*: see `edge-resnet models --help`; .*"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], line: str, refused: Refused) -> None:
    assert re.fullmatch(line, refused(2, *arguments))


def test_without_a_command_there_is_help(cli: Cli) -> None:
    result = cli()
    assert "Start with edge-resnet build" in result.stdout + result.stderr
    assert result.returncode in (0, 2), "click changed its mind between versions"


def test_a_message_stays_one_line_whatever_the_path(refused: Refused, tmp_path: Path) -> None:
    assert refused(2, "info", tmp_path / "two\nlines.edge").endswith("two lines.edge")


# In a process of its own: what the shell sees.


def test_the_installed_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([EDGE_RESNET, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("init", "--json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", {"recipe": "edge-resnet.toml"})
    again = run("init")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "edge-resnet: cannot write 'edge-resnet.toml': it exists already: remove it first, or choose another folder\n"
    )
    assert run("--help").returncode == 0


def test_a_bug_shows_its_traceback_and_exits_1() -> None:
    script = """
import sys
from edge_resnet import recipe
from edge_resnet.cli import main, init_command
init_command.write_recipe_template = lambda folder: 1 / 0
sys.argv = ["edge-resnet", "init"]
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def test_an_interrupted_build_says_nothing_and_leaves_nothing(
    cli: Cli, recipe_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(recipe: object) -> None:
        signal.default_int_handler(signal.SIGINT, None)  # a signal itself is ignored in a shell's background job

    monkeypatch.setattr("edge_resnet.chain.load_source", interrupted)
    result = cli("build", recipe_file())
    assert (result.returncode, result.stdout.strip(), result.stderr.strip()) == (130, "", "")
    assert os.listdir(tmp_path) == ["edge-resnet.toml"]


def test_progress_is_drawn_only_on_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    bars = console.BarProgress()
    with bars.stage("work", 2):
        bars.advance(1)
        bars.update_phase("half", 1, 2)
    with bars.stage("more"):
        pass
    assert capfd.readouterr() == ("", "")
