"""Making a new run folder: corpus, tokenizer, tokens, probe, baselines, settings."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from minirelu.config import Config
from minirelu.errors import UserError, command, shown
from minirelu.estimate import refuse_too_large
from minirelu.runs.files import explained, replacing_folder, write_text
from minirelu.runs.run import Run
from minirelu.source import source_digest
from minirelu.text.batches import baselines, make_probe, open_tokens, write_tokens
from minirelu.text.corpus import open_corpus
from minirelu.text.tokenizer import Tokenizer


def made_with() -> dict[str, Any]:
    """Return versions, platform, and a digest of the code that computes, for the record."""
    import minirelu
    from minirelu.threads import n_threads

    versions = {"minirelu": minirelu.__version__, "python": platform.python_version()}
    for package in ("numpy", "numba", "scipy", "tokenizers", "safetensors"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {
        **versions,
        "code": source_digest(),
        "platform": platform.platform(),
        "threads": n_threads(),
    }


def refuse_taken(folder: Path) -> None:
    """Raise if a new run cannot be made at this place."""
    if (folder / "config.toml").exists():
        raise UserError(
            f"{shown(folder)} holds a run already; choose another --out, or go on with "
            f"{command('train --resume', folder)}"
        )
    new_or_empty = not os.path.lexists(folder) or (
        folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    )
    if not new_or_empty or folder.resolve() == Path.cwd().resolve():
        raise UserError(f"{shown(folder)} exists and is not an empty folder; choose another --out")


def create_run(
    settings: Config, folder: str | Path, on_read: Callable[[int, int], None] = lambda n, of: None
) -> Run:
    """Read the corpus, make tokenizer, tokens, probe and baselines, and write a new run folder.

    The folder appears when all of this is done. ``d_vocab`` in the run's settings is the number
    of tokens that the tokenizer really has, which a small text can make less than was asked for.

    Parameters
    ----------
    settings : Config
    folder : path
        must not exist, or be empty.
    on_read : callable
        called with bytes read since last time, and bytes to read in all: for a progress bar.

    Returns
    -------
    Run
        at step 0, without any checkpoint yet.

    Raises
    ------
    UserError
        for every way in which corpus, settings and folder can be wrong.
    """
    folder = Path(folder)
    with explained(f"making the run folder {shown(folder)}"):
        refuse_taken(folder)
        refuse_too_large(settings)
        corpus = open_corpus(settings.text)

        def read(n: int) -> None:  # everything is read twice: to check it, and to encode it
            on_read(n, 2 * corpus.size)

        facts = corpus.describe(read)
        tokenizer = Tokenizer.for_corpus(corpus, settings.text, settings.model.d_vocab)
        with replacing_folder(folder) as new:
            (new / "tokens").mkdir()
            n_train = write_tokens(new / "tokens" / "train.npy", corpus.train, tokenizer, read)
            n_val = write_tokens(new / "tokens" / "val.npy", corpus.val, tokenizer, read)
            n_ctx = settings.model.n_ctx
            for part, n in (("training", n_train), ("validation", n_val)):
                if n < n_ctx + 1:
                    raise UserError(
                        f"the corpus {shown(settings.text.corpus)} is too small: {n} tokens for "
                        f"{part}, and n_ctx {n_ctx} needs {n_ctx + 1}; give more text or a "
                        "smaller n_ctx"
                    )
            model = dataclasses.replace(settings.model, d_vocab=tokenizer.size)
            settings = dataclasses.replace(settings, model=model)

            val_tokens = open_tokens(new / "tokens" / "val.npy")
            probe = make_probe(val_tokens, settings.train.probe_tokens, n_ctx)
            np.save(new / "probe.npy", probe, allow_pickle=False)
            train_tokens = open_tokens(new / "tokens" / "train.npy")
            facts |= {
                "train_tokens": n_train,
                "val_tokens": n_val,
                "baselines": baselines(train_tokens, probe, tokenizer.size),
            }
            del val_tokens, train_tokens  # Windows does not rename what is mapped
            write_text(new / "tokenizer.json", tokenizer.to_json())
            write_text(new / "corpus.json", json.dumps(facts, indent=1))
            make_rest(new, settings)
    return Run(folder, settings)


def same_text(a: Config, b: Config) -> bool:
    """Whether tokens, tokenizer and probe of two runs are the same."""
    return (
        a.text == b.text
        and (a.model.d_vocab, a.model.n_ctx) == (b.model.d_vocab, b.model.n_ctx)
        and a.train.probe_tokens == b.train.probe_tokens
    )


def create_run_like(run: Run, settings: Config, folder: str | Path) -> Run:
    """Make a new run folder with the text of another run; quicker than :func:`create_run`.

    Parameters
    ----------
    run : Run
        made with settings that give the :func:`same_text` as these.
    settings : Config
    folder : path
        must not exist, or be empty.
    """
    folder = Path(folder)
    with explained(f"making the run folder {shown(folder)}"):
        refuse_taken(folder)
        model = dataclasses.replace(settings.model, d_vocab=run.config.d_vocab)
        settings = dataclasses.replace(settings, model=model)
        refuse_too_large(settings)
        with replacing_folder(folder) as new:
            copy_text(run, new)
            make_rest(new, settings)
    return Run(folder, settings)


def copy_text(run: Run, new: Path) -> None:
    """Copy tokens, tokenizer, probe, and what is known of the corpus."""
    shutil.copytree(run.folder / "tokens", new / "tokens")
    for name in ("probe.npy", "tokenizer.json", "corpus.json"):
        shutil.copyfile(run.folder / name, new / name)


def make_rest(
    new: Path, settings: Config, code: str | None = None, **tables: Mapping[str, Any]
) -> None:
    """Write the settings, followed by more tables, and make what training fills.

    ``code`` is the digest of what made the first steps, where that is not the present code.
    """
    made = made_with() | ({"code": code} if code else {})
    write_text(new / "config.toml", settings.to_toml(made_with=made, **tables))
    for name in ("checkpoints", "counts", "figures"):
        (new / name).mkdir()
    (new / "metrics.jsonl").touch()


def free_folder(name: str) -> Path:
    """Return ``runs/name``, or ``runs/name-2`` and so on where that is taken."""
    folder, i = Path("runs", name), 1
    while os.path.lexists(folder):
        i += 1
        folder = Path("runs", f"{name}-{i}")
    return folder
