"""The page and the figures: complete, self-contained, and safe with hostile text."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from helpers import quick_settings

import minirelu as mr
from minirelu.figures import FIGURES
from minirelu.report.page import layer_rows, run_facts, write_report
from minirelu.runs.prepare import create_run

HOSTILE = '</script><img src=x onerror=alert(1)> \x1b[31mred\x1b[0m \u202e "quoted" & more\n'


def test_page_is_complete_and_needs_nothing_else(finished_run):
    page = write_report(finished_run)
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == len(FIGURES) >= 13
    outside = re.findall(r'(?:src|href)="(?!data:)[^"]*"', html)
    assert outside == []
    last = finished_run.probes()[-1]
    for row in layer_rows(last):
        assert f"<td>{row['per_token']}</td>" in html
    assert finished_run.corpus["sha256"] in html and f"{last['val_loss']:.3f}" in html
    for name in FIGURES:
        for kind, begins in (("png", b"\x89PNG"), ("svg", b"<?xml")):
            file = finished_run.folder / "figures" / f"{name}.{kind}"
            assert file.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    "files, limit_mb, words",
    [
        (1, 0.04, "(the first 0.04 MB of 0.08 MB; a single document: its last part is held out;"),
        (1, 0, "(a single document: its last part is held out;"),
        (4, 0.17, "(0.16 MB of 0.32 MB; documents: 1 and 1, kept whole;"),
        (2, 0, "(documents: 1 and 1, kept whole;"),
    ],
)
def test_the_report_says_how_much_of_a_corpus_was_read(tmp_path, files, limit_mb, words):
    (tmp_path / "text").mkdir()
    for i in range(files):
        lines = "the cat\nand a dog\nsee each other\n" * 2424
        (tmp_path / "text" / f"{i}.txt").write_text(lines[:80_000], encoding="utf-8", newline="\n")
    settings = quick_settings(tmp_path / "text", steps=1)
    text = dataclasses.replace(settings.text, limit_mb=limit_mb)
    run = create_run(dataclasses.replace(settings, text=text), tmp_path / "run")
    assert words in run_facts(run)["text"]


def test_layer_without_any_used_unit_is_said_and_drawn(finished_run, tmp_path):
    record = {**finished_run.probes()[-1], "median_in_sequence_used": [None, 0.5]}
    assert layer_rows(record)[0]["median_in_sequence_used"] == "none used"
    assert layer_rows(record)[1]["median_in_sequence_used"] == "50.0 %"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> mr.Run:
    folder = tmp_path_factory.mktemp("hostile")
    file = folder / "a<b>&.txt"
    file.write_text(HOSTILE * 300, encoding="utf-8")
    settings = quick_settings(file, steps=60, learning_rate=0.02)
    run = create_run(settings, folder / "run <script>")
    mr.train(run)
    return run


def test_hostile_text_is_shown_as_text(hostile_run, plain_figures):
    page = write_report(hostile_run)
    html = page.read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert html.count("<script") == html.count("</script") == 2  # the page's own
    assert "\x1b" not in html and "\u202e" not in html
    pre = re.search(r"<pre>(.*?)</pre>", html, re.DOTALL).group(1)
    assert "&lt;" in pre and r"\x1b[" in pre  # it is there, escaped


def test_no_probe_yet_is_said(text_file, tmp_path):
    run = create_run(quick_settings(text_file), tmp_path / "run")
    with pytest.raises(ValueError, match="no probes yet"):
        write_report(run)
    assert not (run.folder / "report.html").exists()


def test_damaged_records_are_named(finished_run, tmp_path, plain_figures):
    import shutil

    copy = Path(shutil.copytree(finished_run.folder, tmp_path / "copy"))
    file = copy / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([lines[0], "{oops", *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is damaged"):
        mr.Run.open(copy).probes()
    file.write_text("\n".join(lines) + '\n{"kind"', encoding="utf-8")
    assert len(mr.Run.open(copy).probes()) == len(finished_run.probes())
    (copy / "corpus.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="corpus.json is damaged"):
        write_report(mr.Run.open(copy))
    assert [json.loads(line)["kind"] for line in lines[:2]] == ["format", "probe"]
