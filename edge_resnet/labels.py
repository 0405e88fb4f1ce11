"""Files of class names."""

from __future__ import annotations

from pathlib import Path

from edge_resnet.errors import RecipeError
from edge_resnet.limits import check_file


def read_labels(path: Path) -> tuple[str, ...]:
    """Reads a text file of class names, one a line, in the network's order.

    Raises:
        RecipeError: the file cannot be read, has no names, or an empty line between them.
    """
    check_file(path, "document_bytes", RecipeError)
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"labels {path} cannot be read ({error}): give a UTF-8 text file, one name a line") from error
    if not all(name.strip() for name in names) or not names:
        raise RecipeError(f"labels {path} has an empty line: give one name a line, in the network's order")
    return names
