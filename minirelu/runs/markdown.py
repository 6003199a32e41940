"""Pages of Markdown whose tables come from commands: each has a place of its own in the text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minirelu.errors import UserError, shown
from minirelu.runs.files import explained, write_text


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Write a table; a bar within a cell would end it, and is escaped.

    >>> print(table(["layer", "units"], [["0", "12"]]))
    | layer | units |
    | --- | --- |
    | 0 | 12 |
    """
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in l)} |" for l in lines)


def marks(name: str) -> tuple[str, str]:
    """Return the lines between which a part of a page stands.

    >>> marks("results")
    ('<!-- results: begin -->', '<!-- results: end -->')
    """
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def parts_around(file: Path, name: str) -> tuple[str, str]:
    """Return what comes before and after the part of that name, its marks included.

    Raises
    ------
    UserError
        no such page, or it lacks the marks.
    """
    begin, end = marks(name)
    try:
        before, rest = file.read_text(encoding="utf-8").split(begin)
        _, after = rest.split(end)
    except OSError as e:
        raise UserError(f"cannot read {shown(file)}: {e.strerror}") from None
    except ValueError:
        raise UserError(
            f"{shown(file)} lacks the lines {begin} and {end}, between which results go"
        ) from None
    return before + begin, end + after


def replace_part(file: Path, name: str, text: str) -> None:
    """Put text between the marks of a page; raises as :func:`parts_around` does."""
    before, after = parts_around(file, name)
    with explained("writing the page"):
        write_text(file, f"{before}\n\n{text}\n\n{after}")
