"""``minirelu claims``: verdicts on made runs, tables, figure, page, and every mistake."""

from __future__ import annotations

import json

import pytest
from helpers import check_fails_plainly, command, drawn

from minirelu.claims.claims import CLAIMS
from minirelu.claims.verdicts import VERDICTS
from minirelu.death.plan import Plan
from minirelu.death.study import Study
from minirelu.figures.claims import claims as figure_of
from minirelu.figures.claims import draw_claims
from minirelu.runs.markdown import marks


def ask(tmp_path, *arguments):
    """Run it; return what --json wrote: each block's answers, by the names of their claims."""
    result = command("claims", *arguments, "--json", "o.json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    blocks = [{a["name"]: a for a in block["answers"]} for block in content["blocks"]]
    return result.stdout, content, blocks


def folders(runs):
    return [run.folder for run in runs]


@pytest.mark.parametrize(
    "first, verdict",
    [
        ((0.10, 0.12, 0.14), "seen"),
        ((0.60, 0.62, 0.64), "not seen"),
        ((0.98, 0.99, 1.00), "the opposite"),
        ((0.30, 0.50, 0.60), "cannot be said at this size"),
        ((0.10,), "cannot be said at this size"),
    ],
)
def test_layer_0_turns_every_verdict(trained_to, tmp_path, first, verdict):
    runs = [trained_to([use, 0.5, 0.5], seed=s) for s, use in enumerate(first)]
    out, content, (found,) = ask(tmp_path, *folders(runs), "--claim", "first-layer-collapses")
    answer = found["first-layer-collapses"]
    assert answer["verdict"] == verdict and answer["seeds"] == len(first)
    assert answer["value"] == pytest.approx(sum(first) / len(first))
    assert answer["null"]["value"] == 1.0
    assert ("two seeds" in answer["why"]) == (len(first) == 1)
    assert [answer["by_seed"][str(s)]["value"] for s in range(len(first))] == pytest.approx(first)
    assert f"{len(first)}  {verdict:>{max(7, len(verdict))}}" in out  # below the heading "verdict"
    assert len(content["runs"]) == len(first) and content["settings"]["model"]["d_mlp"] == 32


def test_every_claim_on_probes_turns_with_its_runs(trained_to, tmp_path):
    """As the paper has it, and the other way round."""
    early = [[0.9] * 3, [0.6] * 3, [0.5] * 3] + [[0.9] * 3] * 4
    late = [[0.9] * 3] * 5 + [[0.9] * 3, [0.5, 0.9, 0.9]]
    steady = [[0.5] * 3, [0.9] * 3] + [[0.1] * 3] * 5
    no_dip = [[0.3 + 0.1 * i] * 3 for i in range(7)]
    sudden = [[0.5, 0.5, 0.5]] * 6 + [[0.4, 0.3, 0.2]]
    # name: courses, end; of a training as the paper describes it
    as_claimed = {
        "layers-diverge": ({}, [0.1, 0.5, 0.95]),
        "first-layer-collapses": ({}, [0.1, 0.5, 0.95]),
        "last-layer-stays": ({}, [0.1, 0.5, 0.95]),
        "inverted-per-batch": ({}, [0.1, 0.5, 0.95]),
        "inverted-per-token": ({}, [0.1, 0.2, 0.3]),
        "last-above-middle": ({}, [0.1, 0.5, 0.95]),
        "use-falls": ({}, [0.1, 0.2, 0.3]),
        "falls-gradually": ({"per_token": [[0.7 - 0.1 * i] * 3 for i in range(7)]}, [1, 1, 1]),
        "early-dip": ({"per_sequence": early}, [1, 1, 1]),
        "early-steadiness": ({"median_in_sequence_used": steady}, [1, 1, 1]),
        "first-layer-shifts": ({"per_sequence": late}, [1, 1, 1]),
    }
    reversed_ = {
        "layers-diverge": ({}, [0.5, 0.5, 0.5]),
        "first-layer-collapses": ({}, [0.99, 0.5, 0.1]),
        "last-layer-stays": ({}, [0.99, 0.5, 0.1]),
        "inverted-per-batch": ({}, [0.99, 0.5, 0.1]),
        "inverted-per-token": ({}, [0.5, 0.2, 0.1]),
        "last-above-middle": ({}, [0.99, 0.5, 0.1]),
        "use-falls": ({"per_token": [[0.1 * (i + 1)] * 3 for i in range(7)]}, [1, 1, 1]),
        "falls-gradually": ({"per_token": sudden}, [1, 1, 1]),
        "early-dip": ({"per_sequence": no_dip}, [1, 1, 1]),
        "early-steadiness": ({"median_in_sequence_used": no_dip[::-1]}, [1, 1, 1]),
        "first-layer-shifts": ({"per_sequence": [r[::-1] for r in no_dip]}, [1, 1, 1]),
    }
    for cases, verdict in ((as_claimed, "seen"), (reversed_, "the opposite")):
        for name, (courses, end) in cases.items():
            runs = [trained_to(end, seed=s, courses=courses) for s in (0, 1)]
            _, _, (found,) = ask(tmp_path, *folders(runs), "--claim", name)
            assert found[name]["verdict"] == verdict, name


def test_a_hit_that_its_null_has_too_is_not_seen(trained_to, tmp_path):
    """All layers keep nearly all of their units; and layers differed as much from the start."""
    apart = {"per_batch": [[0.3, 0.6, 0.92]] * 6 + [[0.94, 0.95, 0.92]]}
    runs = [trained_to([1, 1, 1], seed=s, courses=apart) for s in (0, 1)]
    _, _, (found,) = ask(tmp_path, *folders(runs), "--claim", "last-layer-stays")
    assert found["last-layer-stays"]["verdict"] == "not seen"
    apart = {"per_batch": [[0.2, 0.6, 0.9]] * 6 + [[0.3, 0.6, 0.9]]}
    runs = [trained_to([1, 1, 1], seed=s, courses=apart) for s in (0, 1)]
    _, _, (found,) = ask(tmp_path, *folders(runs), "--claim", "layers-diverge")
    assert found["layers-diverge"]["verdict"] == "not seen"


@pytest.mark.parametrize("step, verdict", [(-0.1, "seen"), (0.1, "the opposite")])
def test_width_is_asked_of_all_groups_together(trained_to, tmp_path, step, verdict):
    runs = [
        trained_to([0.5 + step * i + 0.01 * s] * 3, seed=s, d_mlp=32 * 2**i)
        for i in range(3)
        for s in (0, 1)
    ]
    out, _, blocks = ask(tmp_path, *folders(runs), "--claim", "width", "--claim", "use-falls")
    assert len(blocks) == 4 and [list(block) for block in blocks[:3]] == [["use-falls"]] * 3
    for measure in ("batch", "token"):
        answer = blocks[3][f"width-per-{measure}"]
        assert answer["value"] == pytest.approx(step) and answer["verdict"] == verdict
    assert "== d_mlp 32, 64, 128" in out and "== d_mlp 64" in out


def test_depth_is_asked_of_runs_that_differ_in_it_alone(trained_to, tmp_path):
    runs = [
        trained_to([0.2, *[0.5] * (L - 2), last + 0.1 * s], seed=s, d_mlp=F)
        for L, F, last in ((2, 32, 0.6), (3, 32, 0.7), (4, 64, 0.3))
        for s in (0, 1)
    ]
    _, _, blocks = ask(tmp_path, *folders(runs), "--claim", "depth")
    (answer,) = [block["depth"] for block in blocks]  # 4 layers have another width: left out
    assert [v["value"] for v in answer["by_seed"].values()] == pytest.approx([0.4, 0.5])


def test_a_training_too_short_or_too_young_gives_a_number_and_no_verdict(trained_to, tmp_path):
    short = [trained_to([0.1, 0.2, 0.9], seed=s, steps=(0, 32, 64)) for s in (0, 1)]
    out, _, (found,) = ask(tmp_path, *folders(short), "--claim", "early", "--claim", "use-falls")
    for name in ("early-dip", "early-steadiness"):
        assert found[name]["verdict"] == VERDICTS[3] and "not 256" in found[name]["why"]
        assert found[name]["value"] is not None
    assert found["use-falls"]["verdict"] == "seen" and "has made 64 steps" in out
    young = [trained_to([0.1, 0.5, 0.9], seed=s, loss=5.7) for s in (0, 1)]
    _, _, (found,) = ask(tmp_path, *folders(young), "--claim", "first-layer-collapses")
    answer = found["first-layer-collapses"]
    assert answer["verdict"] == VERDICTS[3] and "token frequencies" in answer["why"]
    assert answer["value"] == pytest.approx(0.1)


def test_a_study_answers_why_units_turn_off(trained_to, finished_run, tmp_path):
    study = Study.make(tmp_path / "study", finished_run.settings, Plan(seeds=3))
    results = {
        "twins": {
            "the same, at equal margin at step 0": [1.5, 1.6, 1.7],
            "control: other weights, same batches": [0.9, 1.0, 1.1],
        },
        "replay": {"suspect - innocent": [0.7, 0.8, 0.9]},
    }
    (study.folder / "results").mkdir()
    for name, statistics in results.items():
        rows = [
            {"where": "1", "phase": "end", "statistic": s, "values": v}
            for s, v in statistics.items()
        ]
        file = study.folder / "results" / f"{name}.json"
        file.write_text(json.dumps({"experiment": name, "rows": rows}), encoding="utf-8")
    run = trained_to([0.5, 0.5])
    out, content, (found,) = ask(tmp_path, run.folder, "--study", study.folder, "--claim", "not")
    said = {name: answer["verdict"] for name, answer in found.items()}
    assert said == {
        "not-random": "seen", "not-one-batch": "the opposite", "not-large-updates": VERDICTS[3],
    }  # fmt: skip
    assert found["not-random"]["null"]["value"] == pytest.approx(1.0)
    assert "death intervene --out" in out and content["study"]["plan"]["seeds"] == 3


def test_without_names_every_claim_has_a_row(trained, tmp_path):
    """On a run really trained; what it cannot answer says what it takes."""
    before = sorted(trained.rglob("*"))
    out, content, blocks = ask(tmp_path, trained, "--figure", "f.png")
    assert [list(block) for block in blocks] == [
        [*CLAIMS][:13], ["width-per-batch", "width-per-token"], ["depth"], [*CLAIMS][-3:],
    ]  # fmt: skip
    assert {a["verdict"] for block in blocks for a in block.values()} == {VERDICTS[3]}  # 12 steps
    for command_ in ("minirelu specificity", "minirelu sweep fig4", "minirelu death all"):
        assert command_ in out
    assert 0 <= blocks[0]["prunable"]["value"] <= 1 and "takes two seeds" not in out  # too young
    assert all(claim.number in " ".join(out.split()) for claim in CLAIMS.values())
    assert (tmp_path / "f.png").is_file() and (tmp_path / "f.svg").is_file()
    assert content["untested"] and sorted(trained.rglob("*")) == before  # it only reads


def test_the_page_gets_table_and_figure(trained_to, tmp_path):
    page = tmp_path / "page.md"
    begin, end = marks("claims-made")
    page.write_text(f"# Above\n\n{begin}\n{end}\n\nbelow\n", encoding="utf-8")
    runs = [trained_to([0.1, 0.5, 0.6 + 0.01 * s], seed=s) for s in (0, 1, 2)]
    for _ in range(2):  # the second time, it takes the place of the first
        result = command(
            "claims", *folders(runs), "--claim", "first-layer-collapses", "--claim", "last-layer",
            "--page", "page.md#claims-made", cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Above") and text.endswith("below\n") and text.count(begin) == 1
    row = next(line for line in text.splitlines() if "`first-layer-collapses`" in line)
    assert row.count("|") == 10 and "| 10.0 % (10.0 % to 10.0 %) | < 50.0 % |" in row
    assert "100.0 % (the same at step 0) | 3 | **seen** | `minirelu figure fig1 RUN...` |" in row
    assert "**not seen**" in next(line for line in text.splitlines() if "`last-layer" in line)
    assert "(page/claims-made.png)" in text and (tmp_path / "page" / "claims-made.png").is_file()
    assert str(tmp_path) not in text


def test_the_figure_shows_numbers_thresholds_and_verdicts(trained_to, tmp_path):
    runs = [trained_to([0.1, 0.5, 0.6 + 0.1 * s], seed=s) for s in (0, 1)]
    names = ("first-layer-collapses", "last-layer-stays", "width")
    asked = [option for name in names[:2] for option in ("--claim", name)]
    _, content, _ = ask(tmp_path, *folders(runs), *asked)
    data = figure_of(content)
    first, last = data["strips"]
    assert first["thresholds"] == {"seen": 0.5, "opposite": 0.9, "above": False}
    (mark,) = first["marks"]
    assert mark["value"] == pytest.approx(0.1) and mark["verdict"] == "seen" and mark["null"] == 1
    upper, lower = drawn(draw_claims(data))
    assert upper.get_ylabel() == "first layer collapses"
    *_, dot = upper.lines
    assert (dot.get_marker(), dot.get_color()) == ("o", "#0072b2")
    assert dot.get_xdata() == pytest.approx([0.1])
    *_, cross = lower.lines
    assert cross.get_marker() == "X"  # two seeds far apart: nothing can be said
    low, high = last["marks"][0]["low"], last["marks"][0]["high"]
    bar = lower.collections[-1].get_segments()[0]
    assert bar[:, 0].tolist() == pytest.approx([low, high])


def test_mistakes_are_one_plain_line(trained_to, finished_run, tmp_path):
    run = trained_to([0.1, 0.5])
    for arguments, words in [
        ((run.folder, "--claim", "layers-divrege"), ["did you mean 'layers-diverge'"]),
        ((run.folder, "--claim", ""), ["there is no claim"]),
        ((run.folder, "--claim", "width"), ["two values of d_mlp", "have 32", "sweep fig3"]),
        ((run.folder, "--claim", "depth"), ["two values of n_layers", "have 2", "sweep fig4"]),
        ((run.folder, "--claim", "last-above-middle"), ["3 layers", "has 2", "--n-layers"]),
        ((run.folder, "--claim", "not-random"), ["minirelu death all", "--study"]),
        ((run.folder, "--claim", "ends"), ["minirelu specificity"]),
        ((run.folder, "--claim", "prunable"), ["weights", "has none"]),
        ((run.folder, "--study", run.folder), ["no study in"]),
        ((tmp_path / "none",), ["no run in"]),
        ((run.folder, trained_to([0.1, 0.5]).folder), ["the same seed"]),
        ((run.folder, "--claim", "use", "--page", "none.md"), ["cannot read"]),
    ]:
        check_fails_plainly(command("claims", *arguments, cwd=tmp_path), *words)
    late = trained_to([0.1, 0.5], steps=(8, 400))
    check_fails_plainly(
        command("claims", late.folder, "--claim", "use-falls"), "probe at step 0", "at step 8"
    )
    text = (run.folder / "config.toml").read_text(encoding="utf-8")
    (run.folder / "config.toml").write_text(text.replace("steps = 400", "steps = 900"), "utf-8")
    check_fails_plainly(command("claims", run.folder), "not finished", "train --resume")
