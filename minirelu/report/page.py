"""One HTML file that needs nothing else: no network, and a script of its own for the units."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from minirelu.compute import by_reference
from minirelu.config import Config
from minirelu.errors import printable
from minirelu.figures import OF_HISTORY, draw_all, figures_of
from minirelu.generation import generate
from minirelu.model.parameters import n_params
from minirelu.report.deaths import deaths_told
from minirelu.report.units import as_json, script, unit_data
from minirelu.runs.files import explained, write_text
from minirelu.runs.run import Run, probes_of
from minirelu.sparsity.measures import Measure, report_measures, what_on_means

_SAMPLE_TOKENS = 120


def write_report(run: Run, on_read: Callable[[int, int], None] | None = None) -> Path:
    """Draw the figures and write ``report.html``.

    Parameters
    ----------
    run : Run
        with at least one probe.
    on_read : callable, optional
        what takes longest is watching all units on the probe: called with the number of sequences
        just read and of all that will be.

    Returns
    -------
    Path
        of the page.
    """
    with explained("writing the report"):
        (run.folder / "figures").mkdir(exist_ok=True)
        pictures = draw_all(run, run.folder / "figures")
        figures = [
            {
                "name": name,
                "caption": caption,
                "of_history": name in OF_HISTORY,
                "data": base64.b64encode(pictures[name].read_bytes()).decode("ascii"),
            }
            for name, (_, caption) in figures_of(run).items()
        ]
        history, deaths = deaths_told(run)
        page = run.folder / "report.html"
        write_text(page, render(run, figures, deaths, unit_data(run, on_read, history)))
    return page


def render(
    run: Run, figures: list[dict[str, Any]], deaths: dict[str, Any] | None, units: dict[str, Any]
) -> str:
    """Fill the template; everything that comes from outside is escaped by it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("minirelu.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    probes = probes_of(run)
    read, written = sample(run)
    source, source_hash = script()
    return environment.get_template("page.html").render(
        name=printable(run.folder.resolve().name),
        facts=facts(run),
        settings=printable(run.settings.to_toml()),
        last=probes[-1],
        measures=report_measures(),
        rows=layer_rows(probes[-1]),
        on_means=what_on_means(run.config),
        baselines=run.corpus["baselines"],
        figures=figures,
        deaths=deaths,
        units=units,
        unit_json=as_json(units),
        script=source,
        script_hash=source_hash,
        read=printable(read),
        written=printable(written),
    )


def facts(run: Run) -> dict[str, str]:
    """Return what a reader must know about a run to judge its numbers, or to do it again."""
    last, made_with = probes_of(run)[-1], run.made_with
    versions = ", ".join(
        f"{k} {v}" for k, v in made_with.items() if k not in ("platform", "threads", "code")
    )
    parent = run.parent
    branched = {}
    if parent:
        changed = "; ".join(map(str, parent["changed"])) or "nothing"
        branched["branch"] = printable(
            f"of {parent['run']} at step {parent['step']}; changed: {changed}"
        )
    return {
        **run_facts(run),
        **branched,
        "text's SHA-256": str(run.corpus["sha256"]),
        "reached": f"step {last['step']}, {last['tokens']:,} tokens",
        "probe": f"{last['probe_tokens']:,} held-out tokens, the same at every probe; a batch is "
        f"{last['batch_tokens']:,} of them",
        "made with": printable(
            f"{versions}; {made_with.get('platform', 'unknown platform')}, "
            f"{made_with.get('threads', 'unknown number of')} threads"
        ),
        "code": printable(code_text(run)),
    }


def code_text(run: Run) -> str:
    """Say which code trained a run, by the digest of what computes."""
    (_, first), *later = run.code
    return first + "".join(f"; changed, from step {step} on {code}" for step, code in later)


def run_facts(run: Run) -> dict[str, str]:
    """Return model, text and training in a line each, known before the first step."""
    model, train, corpus = run.config, run.settings.train, run.corpus
    widths = [model.d_mlp] if isinstance(model.d_mlp, int) else model.d_mlp
    return {
        "model": f"{model.n_layers} layers, d_model {model.d_model}, "
        f"d_mlp {', '.join(map(str, widths))}, "
        f"{model.n_heads} heads, n_ctx {model.n_ctx}, d_vocab {model.d_vocab}, "
        f"{'with' if model.bias else 'no'} biases, init {model.init}, {model.act_fn}"
        f"{f' {model.act_k}' if model.act_fn == 'topk' else ''}; {n_params(model):,} parameters",
        "text": f"{printable(str(corpus['corpus']))}: {corpus['train_tokens']:,} tokens to train "
        f"on, {corpus['val_tokens']:,} held out ({_reading(corpus)})",
        "training": f"{train.steps} steps of {train.batch_size * model.n_ctx:,} tokens; peak "
        f"learning rate {train.learning_rate:g}, {train.warmup_steps} steps of warm-up, "
        f"{train.schedule}; {train.optimizer}, weight decay {train.weight_decay:g}; seed "
        f"{train.seed}{_extras(run.settings)}",
    }


def _extras(settings: Config) -> str:
    """What most trainings do without, where this one does not."""
    train = settings.train
    extras = [f"; batches by seed {train.data_seed}"] if train.data_seed >= 0 else []
    extras += [f"; l1 {train.l1:g}"] if train.l1 else []
    extras += [f"; {printable(text)}" for text in train.intervene]
    if by_reference(train.compute, settings.model):
        extras.append("; computed by the reference")
    elif train.compute != "auto":
        extras.append(f"; computed by {train.compute} kernels")
    return "".join(extras)


def _reading(corpus: dict[str, Any]) -> str:
    """How much of the corpus was read, and how it was split."""
    read = corpus["train_bytes"] + corpus["val_bytes"]
    total = corpus.get("found_bytes", read)
    whole = corpus.get("kept_whole", corpus["train_documents"] > 1)
    parts = []
    if read < total:
        of = f"{read / 1e6:.3g} MB of {total / 1e6:.3g} MB"
        parts.append(of if whole else f"the first {of}")
    if whole:
        both = f"{corpus['train_documents']} and {corpus['val_documents']}"
        parts.append(f"documents: {both}, kept whole")
    else:
        parts.append("a single document: its last part is held out")
    parts.append(f"files skipped: {corpus.get('skipped_files', 0)}")
    return "; ".join(parts)


def layer_rows(probe: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row per layer of a probe's measures, as text; "-" where the run lacks one."""

    def text(measure: Measure, l: int) -> str:
        return measure.text(probe[measure.name][l]) if measure.name in probe else "-"

    measures = report_measures()
    n_layers = max((len(probe[m.name]) for m in measures if m.name in probe), default=0)
    return [
        {"layer": str(l), **{measure.name: text(measure, l) for measure in measures}}
        for l in range(n_layers)
    ]


def sample(run: Run) -> tuple[str, str]:
    """Return a beginning from the held-out text, and how the model goes on."""
    params = run.params()
    prompt = run.probe_tokens[0, : max(1, min(24, run.config.n_ctx // 2))].tolist()
    new = list(
        generate(params, prompt, run.config, _SAMPLE_TOKENS, temperature=0.8, top_k=40, seed=0)
    )
    return run.tokenizer.decode(prompt), run.tokenizer.decode(new)
