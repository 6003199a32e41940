"""What figures ask of runs: their probes, which belong together, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minirelu.errors import UserError, printable
from minirelu.runs.run import Run, probes_of
from minirelu.sparsity.measures import must_share

# Settings that leave the course of a training as it is, but for chance or rounding.
IRRELEVANT = (
    "seed",
    "data_seed",
    "compute",
    "keep_optimizer_at",
    "micro_batches",
    "probe_every",
    "snapshot_budget_gb",
)
# What two runs may not share: see Measure.must_share.
_IN_WORDS = {
    "n_ctx": "sequences of different length",
    "batch": "probes with batches of different size",
    "tokens": "probes of different size",
    "text": "different texts or vocabularies",
}


def open_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Open runs, each once; a folder that is not a run stands for the runs in it (a sweep).

    Raises
    ------
    UserError
        neither a run, nor a folder of runs.
    """
    runs: dict[Path, Run] = {}  # one that is given twice is not another seed
    for folder in map(Path, folders):
        inside = sorted(file.parent for file in folder.glob("*/config.toml"))
        is_sweep = inside and not (folder / "config.toml").is_file()
        for f in inside if is_sweep else [folder]:
            runs.setdefault(f.resolve(), Run.open(f))
    return list(runs.values())


class NotComparable(UserError):
    """A measure means different things in these runs; ``why`` is what they do not share."""

    def __init__(self, measure: str, why: list[str], runs: Sequence[Run]) -> None:
        self.measure, self.why = measure, why
        super().__init__(f"{measure} cannot be compared between {unlike_runs(why, runs)}")


def name_of(run: Run) -> str:
    """The folder's own name, safe to show."""
    return printable(run.folder.resolve().name)


def facts(run: Run) -> dict[str, Any]:
    """What a reader must know about a run to judge a figure, as plain values."""
    last = probes_of(run)[-1]
    return {
        "name": name_of(run),
        "settings": run.settings.tables(),
        "made_with": run.made_with,
        "corpus_sha256": run.corpus["sha256"],
        "on_means": run.config.activation.on_means,
        **{key: last[key] for key in ("step", "tokens", "probe_tokens", "batch_tokens")},
    }


class Group(NamedTuple):
    """Runs of the same settings, but for the seed, and what they are called in a figure."""

    name: str
    runs: list[Run]


def groups(runs: Sequence[Run], apart: bool = False) -> list[Group]:
    """Put runs of the same settings together, in the order in which they come.

    Parameters
    ----------
    runs : sequence of Run
    apart : bool
        each run by itself, under the name of its folder.
    """
    if apart:
        return [Group(name_of(run), [run]) for run in runs]
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(json.dumps(settings_that_matter(run)), []).append(run)
    vary = differing([members[0] for members in together.values()])
    result = []
    for members in together.values():
        settings = settings_that_matter(members[0])
        name = ", ".join(f"{field.split('.')[1]} {settings[field]}" for field in vary)
        if not 1 <= len(vary) <= 2:
            name = name_of(members[0])
        result.append(Group(printable(name), members))
    return result


def settings_that_matter(run: Run) -> dict[str, Any]:
    """Settings by their full names, without those of :data:`IRRELEVANT`."""
    return {
        f"{section}.{name}": value
        for section, table in run.settings.tables().items()
        for name, value in table.items()
        if name not in IRRELEVANT
    }


def differing(runs: Sequence[Run]) -> list[str]:
    """Names of the settings that matter in which these runs are not all the same."""
    first, *others = [settings_that_matter(run) for run in runs]
    return [name for name in first if any(other[name] != first[name] for other in others)]


def unlike(runs: Sequence[Run]) -> list[str]:
    """Which of the things that a measure may depend on these runs do not share."""
    last = [probes_of(run)[-1] for run in runs]
    shared = {
        "n_ctx": {run.config.n_ctx for run in runs},
        "batch": {probe["batch_tokens"] for probe in last},
        "tokens": {probe["probe_tokens"] for probe in last},
        "text": {
            (run.corpus["sha256"], run.settings.text.tokenizer, run.config.d_vocab) for run in runs
        },
    }
    return [what for what, values in shared.items() if len(values) > 1]


def check_comparable(runs: Sequence[Run], measure: str) -> list[str]:
    """Raise if a measure means different things in these runs; return what else to say of them.

    Returns
    -------
    list of str
        remarks to write on the figure.

    Raises
    ------
    NotComparable
        naming what differs.
    """
    different = unlike(runs)
    if why := [what for what in different if what in must_share(measure)]:
        raise NotComparable(measure, why, runs)
    return not_alike(different)


def not_alike(different: Iterable[str]) -> list[str]:
    """Say what runs do not share, a sentence each.

    >>> not_alike(["n_ctx"])
    ['Not alike: sequences of different length.']
    """
    return [f"Not alike: {_IN_WORDS[what]}." for what in different]


def unlike_runs(different: Iterable[str], runs: Sequence[Run]) -> str:
    """'runs with sequences of different length: small, wide'."""
    words = " and ".join(_IN_WORDS[what] for what in different)
    return f"runs with {words}: {', '.join(name_of(run) for run in runs)}"


def mean_and_range(values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Mean, lowest and highest of what several runs measured; None where nothing was measured.

    >>> mean_and_range([0.5, None, 1.0])
    (0.75, 0.5, 1.0)
    >>> mean_and_range([None])
    (None, None, None)
    """
    present = [v for v in values if v is not None]
    if not present:
        return None, None, None
    return sum(present) / len(present), min(present), max(present)
