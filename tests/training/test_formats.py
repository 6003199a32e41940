"""Format versions: what a new run carries, what an old one lacks, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from unittest import mock

import numpy as np
import pytest
from helpers import check_fails_plainly, command, quick_settings

import minirelu as mr
from minirelu.runs.files import read_arrays, write_arrays
from minirelu.runs.formats import COUNTS_FORMAT, METRICS_FORMAT, read_counts, write_counts
from minirelu.runs.prepare import create_run
from minirelu.training import trainer


def lines(run: mr.Run) -> list[dict]:
    text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def after(steps: int) -> Callable[[], bool]:
    """``should_stop`` that says yes after this many steps."""
    calls = iter(range(steps - 1))
    return lambda: next(calls, None) is None


@contextlib.contextmanager
def writing_format_1() -> Iterator[None]:
    """Leave out the stamps, as minirelu 0.1.0 did."""
    write = trainer.write_record

    def write_record(file: IO[bytes], record: dict) -> None:
        if record["kind"] != "format":
            write(file, record)

    with (
        mock.patch.object(trainer, "write_record", write_record),
        mock.patch.object(trainer, "write_counts", lambda f, c: write_arrays(f, c.to_arrays())),
    ):
        yield


def copy_of(run: mr.Run, folder: Path) -> mr.Run:
    return mr.Run.open(shutil.copytree(run.folder, folder))


def test_new_run_carries_its_formats(finished_run):
    first, *rest = lines(finished_run)
    assert first == {"kind": "format", "format": METRICS_FORMAT, "minirelu": mr.__version__}
    assert {record["kind"] for record in rest} == {"probe", "train"}
    for probe in finished_run.probes():
        arrays = read_arrays(finished_run.counts_file(probe["step"]))
        assert arrays["format"] == COUNTS_FORMAT and arrays["format"].dtype.kind == "i"
        assert arrays["minirelu"] == mr.__version__


def test_format_1_is_read_as_before(finished_run, text_file, tmp_path):
    old = create_run(quick_settings(text_file), tmp_path / "old")
    with writing_format_1():
        assert mr.train(old)
    assert lines(old)[0]["kind"] == "probe" and "format" not in read_arrays(old.counts_file(0))
    old = mr.Run.open(old.folder)
    assert old.probes() == finished_run.probes()
    assert [r["loss"] for r in old.metrics("train")] == [
        r["loss"] for r in finished_run.metrics("train")
    ]
    for name, array in finished_run.counts(12).to_arrays().items():
        np.testing.assert_array_equal(old.counts(12).to_arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("begun_in", [1, 2])
def test_resume_adds_no_stamp_to_records(finished_run, text_file, tmp_path, begun_in):
    run = create_run(quick_settings(text_file), tmp_path / "run")
    with writing_format_1() if begun_in == 1 else contextlib.nullcontext():
        assert not mr.train(run, should_stop=after(5))
    assert mr.train(mr.Run.open(run.folder))
    records = [(record["kind"], record.get("step")) for record in lines(run)]
    expected = [(record["kind"], record.get("step")) for record in lines(finished_run)]
    assert records == expected[2 - begun_in :]
    assert run.probes() == finished_run.probes()
    assert run.params().flat.tobytes() == finished_run.params().flat.tobytes()


def test_stamp_survives_an_interruption_before_the_first_checkpoint(text_file, tmp_path):
    run = create_run(quick_settings(text_file, steps=2), tmp_path / "run")

    def interrupt(*_):
        raise KeyboardInterrupt

    for moment, kinds in (("probe", ["format"]), ("save", ["format", "probe"])):
        with mock.patch.object(trainer, moment, interrupt), pytest.raises(KeyboardInterrupt):
            mr.train(run)
        assert [record["kind"] for record in lines(run)] == kinds and not run.steps
    assert mr.train(run)
    assert [record["kind"] for record in lines(run)] == [
        *("format", "probe", "train", "probe", "train", "probe")
    ]


LATER = {"kind": "format", "format": METRICS_FORMAT + 1, "minirelu": "9.9.0"}


def test_metrics_of_a_later_format_are_refused(finished_run, tmp_path):
    run = copy_of(finished_run, tmp_path / "run")
    file = run.folder / "metrics.jsonl"
    later = json.dumps(LATER) + "\n" + '{"what": "nobody knows"}\n'
    file.write_text(later, encoding="utf-8")
    (run.folder / "config.toml").write_text("[unheard_of]\n", encoding="utf-8")
    for arguments in (["report", "run"], ["train", "--resume", "run"], ["compare", "run", "run"]):
        check_fails_plainly(
            command(*arguments, cwd=tmp_path),
            "metrics.jsonl is of format 3, written by minirelu 9.9.0",
            f"this is {mr.__version__} and reads formats 1 and 2",
            "install minirelu 9.9.0 or later",
        )
    with pytest.raises(ValueError, match="is of format 3"):
        run.probes()  # opened before the file changed
    assert file.read_text(encoding="utf-8") == later


def test_counts_of_a_later_format_are_refused(finished_run, tmp_path):
    file = tmp_path / "counts.npz"
    write_counts(file, finished_run.counts(12))
    arrays = read_arrays(file)
    write_arrays(file, arrays | {"format": np.int64(3), "minirelu": np.str_("9.9.0")})
    with pytest.raises(ValueError, match=r"counts.npz is of format 3, written by minirelu 9.9.0; "):
        read_counts(file, finished_run.config)
    del arrays["minirelu"]
    write_arrays(file, arrays | {"format": np.int64(3)})
    with pytest.raises(
        ValueError, match="format 3; this is .* install a later version of minirelu"
    ):
        read_counts(file, finished_run.config)


@pytest.mark.parametrize("stamp", [np.str_("2"), np.arange(2), np.float64(2), np.arange(0)])
def test_damaged_stamp_of_counts_is_named(finished_run, tmp_path, stamp):
    file = tmp_path / "counts.npz"
    write_arrays(file, finished_run.counts(12).to_arrays() | {"format": stamp})
    with pytest.raises(ValueError, match=r"counts.npz is damaged"):
        read_counts(file, finished_run.config)


@pytest.mark.parametrize("stamp", [None, "2", [], {}, 2.5])
def test_damaged_stamp_of_metrics_is_named(finished_run, tmp_path, stamp):
    run = copy_of(finished_run, tmp_path / "run")
    file = run.folder / "metrics.jsonl"
    _, *records = file.read_text(encoding="utf-8").splitlines()
    first = json.dumps({"kind": "format", "format": stamp})
    file.write_text("\n".join([first, *records, ""]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged"):
        mr.Run.open(run.folder)


def test_counts_lacking_an_array_are_named(finished_run, tmp_path):
    arrays = finished_run.counts(12).to_arrays()
    del arrays["first_at"]
    write_arrays(tmp_path / "counts.npz", arrays)
    with pytest.raises(ValueError, match=r"counts.npz is damaged: it lacks 'first_at'"):
        read_counts(tmp_path / "counts.npz", finished_run.config)
