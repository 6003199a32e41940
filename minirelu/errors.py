"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable


class UserError(ValueError):
    """Something outside the program is wrong: an option, a file, a folder, a loss that is NaN.

    The message is one line for a person: what was wrong, where, what to do. The command line
    prints it without a traceback and exits with code 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"``, or nothing where no known word is near.

    >>> nearest("d_mpl", ["d_mlp", "n_ctx"])
    " (did you mean 'd_mlp'?)"
    >>> nearest("zzz", ["d_mlp"])
    ''
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def printable(text: str) -> str:
    r"""Show control characters as escapes, so that text from outside cannot steer a terminal.

    Line feeds and tabs stay. Everything else that is a control, a bidirectional override or an
    unpaired surrogate is written out.

    >>> print(printable("red \x1b[31m, reversed \u202e"))
    red \x1b[31m, reversed \u202e
    """
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def one_line(text: object) -> str:
    r"""``printable`` text on a single line, for messages.

    >>> one_line("a\n  b")
    'a b'
    """
    return " ".join(printable(str(text)).split())


def shown(path: object) -> str:
    """A path on one line, safe to print whatever its name holds."""
    return printable(str(path)).replace("\n", "\\n")


def program() -> str:
    """The name by which the user called this program: ``bin/minirelu`` says its own."""
    return os.environ.get("MINIRELU_COMMAND", "minirelu")


def command(what: str, path: object) -> str:
    """A command to copy, under the name by which the user called this program.

    >>> command("sample", "my run").endswith("minirelu sample 'my run'")
    True
    """
    return f"{program()} {what} {shlex.quote(shown(path))}"
