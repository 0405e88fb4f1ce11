"""Strict reading of a TOML file, table by table and key by key: what is unknown or of another type is refused."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from edge_resnet.errors import RecipeError
from edge_resnet.limits import check_file

if sys.version_info >= (3, 11):
    import tomllib as tomllib
else:
    import tomli as tomllib

IMAGES_WANTED = "give a folder of images, or a CSV file of path,label"

_Default = TypeVar("_Default")


_MOST_DOTS = 1000
"""In one line: the time that ``tomllib`` takes for a key grows as the square of its parts (64 KB of ``a.a.a`` is half a
minute)."""


def parse_toml(path: Path) -> dict[str, Any]:
    """Parses a file of bounded size, however its values are nested.

    Raises:
        RecipeError: it is larger than the limit.
        OSError: it cannot be read.
        ValueError: it is no UTF-8 or no TOML, or nested without end.
    """
    check_file(path, "recipe_bytes", RecipeError)
    text = path.read_bytes().decode("utf-8-sig")  # some editors put a byte order mark first
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"line {number} has more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("lists or tables stand too deep in one another") from error


def read_toml(path: Path) -> dict[str, object]:
    """Reads a whole file.

    Raises:
        RecipeError: it is missing, cannot be read, or is no TOML; then the message tells the line.
    """
    try:
        return parse_toml(path)
    except FileNotFoundError as error:
        raise RecipeError(f"{path} does not exist: write one with 'edge-resnet init'") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): give a recipe file") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is no UTF-8 text (byte {error.start}): save it as UTF-8; "
            "if it is a checkpoint, name it in a recipe, which 'edge-resnet init' writes"
        ) from error
    except ValueError as error:  # TOMLDecodeError, which tells the line, or a number too long for Python
        raise RecipeError(f"{path} is no valid TOML: {error}") from error


@dataclass(frozen=True)
class Table:
    """One table of a recipe, read key by key. A key that is left out gives None, or the default.

    Every method raises RecipeError with the file, the key, its value and what is wanted instead.
    """

    path: Path
    """The recipe."""
    name: str
    values: Mapping[str, object]

    def wrong(self, key: str, advice: str) -> RecipeError:
        """Makes the error for a value, to be raised."""
        value = self.values[key]
        shown = str(value).lower() if isinstance(value, bool) else repr(value)  # as TOML writes it
        return RecipeError(f"{self.path}: '{key}' in [{self.name}] is {shown}: {advice}")

    def check_keys(self, recipe: type) -> None:
        """Refuses keys that are no fields of a dataclass."""
        self.check_names([field.name for field in fields(recipe)])

    def check_names(self, known: Sequence[str]) -> None:
        """Refuses keys that are not among these."""
        for key in self.values:
            if key not in known:
                raise RecipeError(f"{self.path}: unknown key '{key}' in [{self.name}]: {advice_on(key, known, 'keys')}")

    def text(self, key: str) -> str | None:
        """Reads a string that is not empty."""
        value = self.values.get(key)
        if value is not None and not _is_text(value):
            raise self.wrong(key, "give a string, not empty")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """Reads one of several words."""
        value = self.values.get(key, default)
        if not (isinstance(value, str) and value in choices):
            raise self.wrong(key, f"choose one of {', '.join(choices)}")
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """Reads a list of strings, none of them twice."""
        value = self.values.get(key, list(default))
        if not (isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)):
            raise self.wrong(key, "give a list of strings, each once and not empty")
        return tuple(value)

    def count(self, key: str, default: _Default) -> int | _Default:
        """Reads a whole number, 1 or more."""
        if key not in self.values:
            return default
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "give a whole number, 1 or more")
        return value

    def index(self, key: str) -> int | None:
        """Reads a whole number, 0 or more."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise self.wrong(key, "give a whole number, 0 or more")
        return value

    def counts(self, key: str, length: int) -> tuple[int, ...] | None:
        """Reads a list of so many whole numbers, each 1 or more."""
        value = self.values.get(key)
        if value is None:
            return None
        counts = isinstance(value, list) and all(type(item) is int and item >= 1 for item in value)
        if not (counts and isinstance(value, list) and len(value) == length):
            raise self.wrong(key, f"give a list of {length} whole numbers, each 1 or more")
        return tuple(value)

    def number(self, key: str) -> float | None:
        """Reads a number."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise self.wrong(key, "give a number")
        return None if value is None else float(value)

    def points(self, key: str, default: float) -> float:
        """Reads a number of percentage points, 0 to 100."""
        value = self.values.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 100:
            raise self.wrong(key, "give a number of points from 0 to 100")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Reads true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "give true or false")
        return value

    def beside(self, text: str) -> Path:
        """Takes a path relative to the recipe's folder."""
        return self.path.parent / text

    def file(self, key: str) -> Path | None:
        """Reads the path of a file that exists."""
        text = self.text(key)
        if text is None:
            return None
        path = self.beside(text)
        if not os.path.isfile(path):
            raise self.wrong(key, f"give a file that exists, {path} does not")
        return path

    def images(self, key: str) -> Path | None:
        """Reads the path of a folder or CSV file that exists."""
        text = self.text(key)
        if text is None:
            return None
        path = self.beside(text)
        if not os.path.isdir(path) and not (path.suffix.lower() == ".csv" and os.path.isfile(path)):
            raise self.wrong(key, f"{IMAGES_WANTED}; {path} is neither")
        return path


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


def advice_on(name: str, known: Sequence[str], kind: str) -> str:
    """What to write instead of an unknown name."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"the {kind} are {', '.join(known)}"
