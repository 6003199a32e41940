"""Corpora, tokenizers, token files, batches and baselines."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirelu.config import TextConfig
from minirelu.text import corpus as corpus_module
from minirelu.text.batches import baselines, batch, make_probe, open_tokens, write_tokens
from minirelu.text.corpus import Document, open_corpus
from minirelu.text.tokenizer import Tokenizer


def folder_of(tmp_path: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return tmp_path


def text_of(documents: tuple[Document, ...]) -> str:
    return "".join("".join(d.chunks()) for d in documents)


# --- corpora


def test_folder_is_split_by_document(tmp_path):
    folder = folder_of(tmp_path, {f"a/{i}.txt": f"document {i}\n" * 20 for i in range(40)})
    corpus = open_corpus(TextConfig(corpus=str(folder), val_fraction=0.2))
    train, val = {d.name for d in corpus.train}, {d.name for d in corpus.val}
    assert not train & val and len(train | val) == 40
    assert len(val) == pytest.approx(8, abs=1)
    again = open_corpus(TextConfig(corpus=str(folder), val_fraction=0.2))
    assert again.val == corpus.val


def test_one_large_document_does_not_make_up_the_validation_part(tmp_path):
    files = {f"{i}.txt": "short\n" * 50 for i in range(60)} | {"large.txt": "long\n" * 400}
    for seed in range(3):
        files[f"more{seed}.txt"] = "another\n" * 300
        corpus = open_corpus(TextConfig(corpus=str(folder_of(tmp_path, files))))
        assert "large.txt" not in {d.name for d in corpus.val}


def test_two_documents_are_one_for_training_and_one_for_validation(tmp_path):
    folder = folder_of(tmp_path, {"a.txt": "x" * 100, "b.txt": "y" * 50})
    corpus = open_corpus(TextConfig(corpus=str(folder)))
    assert [d.name for d in corpus.train] == ["a.txt"] and [d.name for d in corpus.val] == ["b.txt"]


def test_single_file_is_split_into_contiguous_parts_at_a_line(tmp_path):
    text = "".join(f"line {i} é\n" for i in range(1000))
    file = folder_of(tmp_path, {"one.txt": text}) / "one.txt"
    for path in (file, tmp_path):  # the file, or a folder with nothing else in it
        corpus = open_corpus(TextConfig(corpus=str(path), val_fraction=0.25))
        train, val = text_of(corpus.train), text_of(corpus.val)
        assert train + val == text
        assert train.endswith("\n") and len(val) / len(text) == pytest.approx(0.25, abs=0.01)


def test_a_file_without_lines_is_not_cut_inside_a_character(tmp_path):
    file = folder_of(tmp_path, {"one.txt": "aé€𝄞" * 3000}) / "one.txt"
    for fraction in (0.1, 0.1003, 0.2501, 0.3333, 0.41):
        corpus = open_corpus(TextConfig(corpus=str(file), val_fraction=fraction))
        assert text_of(corpus.train) + text_of(corpus.val) == "aé€𝄞" * 3000


def test_binary_hidden_and_empty_files_are_left_out_and_counted(tmp_path):
    files = {"a.txt": "text\n", "b.txt": "more\n", "c.png": b"\x89PNG\0\0", "d.txt": b""}
    corpus = open_corpus(
        TextConfig(corpus=str(folder_of(tmp_path, {**files, ".git/x": "no", ".hidden": "no"})))
    )
    assert {d.name for d in (*corpus.train, *corpus.val)} == {"a.txt", "b.txt"}
    assert corpus.skipped == 2


def test_limit_mb_takes_a_part_of_the_corpus(tmp_path):
    folder = folder_of(tmp_path, {f"{i}.txt": "x" * 1000 for i in range(50)})
    corpus = open_corpus(TextConfig(corpus=str(folder), limit_mb=0.01))
    assert (corpus.size, corpus.found_bytes) == (10_000, 50_000)
    file = folder_of(tmp_path / "f", {"one.txt": "0123456\n" * 10_000}) / "one.txt"
    corpus = open_corpus(TextConfig(corpus=str(file), limit_mb=0.01))
    assert corpus.val[0].stop == pytest.approx(10_000, abs=10) and corpus.found_bytes == 80_000
    folder = folder_of(tmp_path / "two", {f"{i}.txt": "0123456\n" * 10_000 for i in range(2)})
    corpus = open_corpus(TextConfig(corpus=str(folder), limit_mb=0.01))
    assert len({d.path for d in (*corpus.train, *corpus.val)}) == 1  # a part of one document
    assert corpus.found_bytes == 160_000 and not corpus.kept_whole


def test_small_chunks_give_the_same_text_as_one_read(tmp_path, monkeypatch):
    text = "aé€𝄞 \r\n" * 50 + "no line end" * 9
    file = folder_of(tmp_path, {"a.txt": text}) / "a.txt"
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(corpus_module, "CHUNK", size)
        assert "".join(Document("a", file, 0, file.stat().st_size).chunks()) == text


def test_byte_order_mark_is_not_text(tmp_path):
    file = folder_of(tmp_path, {"a.txt": b"\xef\xbb\xbfab\n" * 2}) / "a.txt"
    assert "".join(Document("a", file, 0, file.stat().st_size).chunks()) == "ab\n\ufeffab\n"


@pytest.mark.parametrize("chunk", [4, 5, 1 << 20])
@pytest.mark.parametrize("bad, at", [(b"abcd\xff efgh", 4), (b"abcdefg\xe2\x82", 7)])
def test_not_utf8_names_file_and_byte(tmp_path, monkeypatch, chunk, bad, at):
    monkeypatch.setattr(corpus_module, "CHUNK", chunk)
    file = folder_of(tmp_path, {"bad.txt": bad}) / "bad.txt"
    with pytest.raises(ValueError, match=rf"bad.txt is not UTF-8 text \(byte {at}\)"):
        list(Document("bad", file, 0, len(bad)).chunks())


def test_digest_depends_on_every_byte_and_name(tmp_path):
    def digest(files: dict[str, str], where: str) -> str:
        folder = folder_of(tmp_path / where, files)
        return open_corpus(TextConfig(corpus=str(folder))).describe()["sha256"]

    one = digest({"a": "xy", "b": "z"}, "1")
    assert one == digest({"a": "xy", "b": "z"}, "2")
    assert len({one, digest({"a": "xy", "b": "q"}, "3"), digest({"c": "xy", "b": "z"}, "4")}) == 3


def test_the_stdlib_corpus_leaves_out_its_tests():
    corpus = open_corpus(TextConfig())
    names = {d.name for d in (*corpus.train, *corpus.val)}
    assert "argparse.py" in names and not any(n.startswith(("test/", "site-pack")) for n in names)


# --- tokenizers


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_tokenizers_are_lossless(text):
    for tokenizer in (Tokenizer.from_bytes(), _trained()):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.end not in tokenizer.encode(text + "<|endoftext|>")


def _trained(cache: list[Tokenizer] = []) -> Tokenizer:  # noqa: B006
    if not cache:
        cache.append(Tokenizer.train(iter(["the cat sat on the mat\n" * 50]), 280))
    return cache[0]


def test_byte_tokenizer_has_one_token_per_byte():
    tokenizer = Tokenizer.from_bytes()
    assert tokenizer.size == 257 and tokenizer.end == 0
    assert len(tokenizer.encode("né€")) == 6


def test_bpe_learns_what_is_frequent_and_survives_its_json(tmp_path):
    tokenizer = _trained()
    assert 257 < tokenizer.size <= 280
    assert len(tokenizer.encode(" the")) == 1
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    text = "the mat <|endoftext|>"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.end == 0


def test_encoding_a_prompt_refuses_an_unknown_character(tmp_path):
    """A tokenizer from elsewhere may lack characters; ours, of bytes, cannot."""
    content = """{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
        "byte_fallback": false, "vocab": {"a": 0, "b": 1}, "merges": []}}"""
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(ValueError, match="no token for '€'"):
        tokenizer.encode_prompt("ab€")
    with pytest.raises(ValueError, match="prompt is not UTF-8"):
        _trained().encode_prompt("a\udcff")


def test_damaged_tokenizer_is_named(tmp_path):
    (tmp_path / "t.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(ValueError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "no.json")


# --- tokens, batches, probe, baselines


def test_token_files_hold_documents_with_an_end_token_after_each(tmp_path):
    folder = folder_of(tmp_path, {"a.txt": "ab", "b.txt": "c<|endoftext|>"})
    documents = [
        Document(n, folder / n, 0, os.path.getsize(folder / n)) for n in ("a.txt", "b.txt")
    ]
    tokenizer = Tokenizer.from_bytes()
    n = write_tokens(tmp_path / "t.npy", documents, tokenizer)
    tokens = open_tokens(tmp_path / "t.npy")
    assert isinstance(tokens, np.memmap) and tokens.shape == (n,) and tokens.dtype == np.uint16
    expected = [*tokenizer.encode("ab"), 0, *tokenizer.encode("c<|endoftext|>"), 0]
    assert tokens.tolist() == expected


def test_token_file_that_claims_too_much_is_refused(tmp_path):
    with open(tmp_path / "t.npy", "wb") as f:
        header = {"descr": "<u2", "fortran_order": False, "shape": (1 << 50,)}
        np.lib.format.write_array_header_1_0(f, header)
    with pytest.raises(ValueError, match="t.npy"):
        open_tokens(tmp_path / "t.npy")
    np.save(tmp_path / "o.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="o.npy"):
        open_tokens(tmp_path / "o.npy")


def test_batches_depend_on_seed_and_step_alone():
    tokens = np.arange(1000)
    make = lambda step, seed: batch(tokens, step, 4, 8, seed)  # noqa: E731
    assert np.array_equal(make(3, 0), make(3, 0))
    assert not np.array_equal(make(3, 0), make(4, 0))
    assert not np.array_equal(make(3, 0), make(3, 1))
    sequences = make(3, 0)
    assert sequences.shape == (4, 9)
    assert np.all(np.diff(sequences) == 1)  # contiguous
    starts = np.concatenate([batch(np.arange(12), s, 50, 8, 0)[:, 0] for s in range(20)])
    assert set(starts.tolist()) == {0, 1, 2, 3}  # every place, the last one too


def test_probe_is_whole_disjoint_sequences():
    probe = make_probe(np.arange(1000), n_tokens=130, n_ctx=16)
    assert probe.shape == (8, 17)
    assert np.unique(probe).size == probe.size and probe[0, 0] == 0 and probe[-1, -1] == 999
    assert make_probe(np.arange(40), n_tokens=8192, n_ctx=16).shape == (2, 17)  # all there is
    assert make_probe(np.arange(40), n_tokens=3, n_ctx=16).shape == (1, 17)  # at least one


def test_baselines_by_hand():
    tokens, probe = np.array([0, 1, 0, 2, 0, 1]), np.array([[0, 1, 0], [3, 3, 1]])
    p1 = np.array([4, 3, 2, 1]) / 10  # (count + 1) / (6 + 4)
    unigram = -np.log(p1[[1, 0, 3, 1]]).mean()
    # after 0: 1 twice, 2 once, two kinds; after 1: 0 once, one kind; 3 was never seen
    p2 = [(2 + 2 * p1[1]) / 5, (1 + 1 * p1[0]) / 2, p1[3], p1[1]]
    losses = baselines(tokens, probe, 4)
    assert losses["uniform"] == pytest.approx(np.log(4))
    assert losses["unigram"] == pytest.approx(unigram)
    assert losses["bigram"] == pytest.approx(-np.log(p2).mean())


def test_bigram_probabilities_add_up_to_one():
    tokens = np.random.default_rng(0).integers(0, 5, 60)
    for before in range(6):
        each = [baselines(tokens, np.array([[before, after]]), 6)["bigram"] for after in range(6)]
        assert np.exp(-np.array(each)).sum() == pytest.approx(1)
