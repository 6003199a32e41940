"""The chapter on units that fell silent: its table, and what its words mean."""

from __future__ import annotations

from typing import Any

from minirelu.death.history import History
from minirelu.death.summary import in_words, summary
from minirelu.errors import UserError, one_line
from minirelu.runs.run import Run

# Headings of the table, and what they are called in the summary.
COLUMNS = {
    "layer": "layer",
    "silent now": "silent now",
    "dead now": "dead now",
    "ever died": "ever died",
    "came back": "came back",
    "false deaths": "false",
    "returns / flicker": "vs flicker",
}


def deaths_told(run: Run) -> tuple[History | None, dict[str, Any] | None]:
    """Read a run's history, and tell it for the chapter.

    Returns
    -------
    history : History, or None
        where there is none, or it cannot be read, or is too short for a death.
    told : dict, or None
        None without a history: no chapter. Else ``rows`` of the table, and what :func:`summary`
        says of the texts; or the ``problem``.
    """
    if not run.has_history:
        return None, None
    try:
        history = History.of(run)
        numbers = summary(history)
    except UserError as e:
        return None, {"problem": one_line(e)}
    rows = [in_words(row) for row in numbers["layers"]]
    rows = [{heading: row[name] for heading, name in COLUMNS.items()} for row in rows]
    return history, {**numbers, "problem": "", "rows": rows}
