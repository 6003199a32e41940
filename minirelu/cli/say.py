"""Printing: what comes from outside cannot steer the terminal, and a reader may leave."""

from __future__ import annotations

import os
import sys

import click

from minirelu.errors import printable


def say(text: object = "", nl: bool = True) -> None:
    """Print to standard output, with control characters shown as escapes.

    If the reader of a pipe has left (``minirelu train | head``), the work goes on in silence.
    """
    try:
        click.echo(printable(str(text)), nl=nl)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
