"""Tables of verdicts, as rows of text with a heading: for the terminal, and for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minirelu.claims.answers import Answer

Rows = list[list[str]]


def seeds(n: int) -> str:
    """How many, in words.

    >>> seeds(1), seeds(3)
    ('1 seed', '3 seeds')
    """
    return f"{n} seed{'s' * (n != 1)}"


def of_terminal(answers: Sequence[Answer]) -> Rows:
    """A row for each claim."""
    rows = [["claim", "number", "95 % interval", "seen if", "null", "seeds", "verdict"]]
    for a in answers:
        rows.append([a.claim.name, *_numbers(a), _seen_if(a), _null(a), str(a.seeds), a.verdict])
    return rows


def of_page(answers: Sequence[Answer]) -> Rows:
    """The same for Markdown, with claims and definitions in words, and what shows them."""
    head = ["claim", "from", "our number", "found", "seen if", "null", "seeds", "verdict"]
    rows = [[*head, "shown by"]]
    for a in answers:
        value, interval = _numbers(a)
        null = _null(a)
        rows.append(
            [
                f"`{a.claim.name}`: {a.claim.says}",
                a.claim.source,
                a.claim.number,
                value if interval == "-" else f"{value} ({interval})",
                _seen_if(a),
                null if null == "-" else f"{null} ({a.claim.null})",
                str(a.seeds),
                f"**{a.verdict}**" + f": {a.reason}" * bool(a.reason),
                f"`minirelu {a.claim.shown_by}`",
            ]
        )
    return rows


def _numbers(a: Answer) -> tuple[str, str]:
    """The number and its interval; "-" for what there is not."""
    mean, low, high = a.estimate
    interval = f"{a.claim.text(low)} to {a.claim.text(high)}" if math.isfinite(low) else "-"
    return ("-" if math.isnan(mean) else a.claim.text(mean)), interval


def _seen_if(a: Answer) -> str:
    """'> 25.0 %, and null'."""
    also = ", and null" if a.claim.beyond_null else ""
    return f"{a.claim.thresholds.text(a.claim.text)}{also}"


def _null(a: Answer) -> str:
    return "-" if math.isnan(a.null.value) else a.claim.text(a.null.value)
