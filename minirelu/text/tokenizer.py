"""Byte-level BPE, trained with the ``tokenizers`` library; raw bytes are BPE without merges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer as _Tokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from minirelu.config import TextConfig
from minirelu.errors import UserError, one_line, shown
from minirelu.text.corpus import Corpus

END = "<|endoftext|>"  # token 0 of our own tokenizers; follows every document
SMALLEST = 257  # END and the 256 bytes
_TRAIN_ON = 50_000_000  # characters of text that merges are learned from, at most


class Tokenizer:
    """Text to token ids and back, without loss.

    The text ``<|endoftext|>`` inside a document is text like any other: only :attr:`end` is the
    end of a document.

    Examples
    --------
    >>> tokenizer = Tokenizer.from_bytes()
    >>> ids = tokenizer.encode("né <|endoftext|>")
    >>> len(ids), tokenizer.decode(ids)
    (17, 'né <|endoftext|>')
    """

    def __init__(self, inner: _Tokenizer) -> None:
        self._inner = inner
        inner.encode_special_tokens = True  # text that looks like END is not END
        self.end: int | None = inner.token_to_id(END)

    @classmethod
    def from_bytes(cls) -> Tokenizer:
        """Make the tokenizer whose tokens are single bytes."""
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: i for i, token in enumerate([END, *alphabet])}
        inner = _byte_level(models.BPE(vocab=vocabulary, merges=[]))
        inner.add_special_tokens([END])
        return cls(inner)

    @classmethod
    def train(cls, texts: Iterator[str], d_vocab: int) -> Tokenizer:
        """Learn merges (Sennrich, Haddow & Birch 2016) until there are ``d_vocab`` tokens.

        A text too small to yield that many gives fewer.
        """
        inner = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=d_vocab,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def for_corpus(cls, corpus: Corpus, config: TextConfig, d_vocab: int) -> Tokenizer:
        """Make the tokenizer that the settings ask for, from the training part alone."""
        if d_vocab < SMALLEST:
            raise UserError(
                f"d_vocab: {d_vocab} is too small; 256 bytes and the end of a document need "
                f"{SMALLEST}"
            )
        if config.tokenizer == "bytes":
            return cls.from_bytes()
        return cls.train(_first_texts(corpus), d_vocab)

    @classmethod
    def load(cls, file: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json``."""
        try:
            return cls(_Tokenizer.from_str(Path(file).read_text(encoding="utf-8")))
        except OSError as e:
            raise UserError(f"cannot read the tokenizer {shown(file)}: {e.strerror}") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as e:  # the library raises nothing more specific, and may panic
            raise UserError(f"{shown(file)} is not a tokenizer: {one_line(e)}") from None

    def to_json(self) -> str:
        """Return what :meth:`load` reads."""
        return self._inner.to_str(pretty=True)

    @property
    def size(self) -> int:
        """V, the number of tokens."""
        return self._inner.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Text to ids."""
        return self._inner.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        """Text from a user to ids; raises for a character without a token, instead of losing it."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise UserError(f"the prompt is not UTF-8 text (character {e.start + 1})") from None
        ids = self.encode(text)
        if self.decode(ids) == text:
            return ids
        for character in text:
            if character not in self.decode(self.encode(character)):
                raise UserError(
                    f"the tokenizer of this model has no token for {one_line(repr(character))}; "
                    "leave it out of the prompt"
                )
        return ids  # only white space or the like is normalised away

    def decode(self, ids: list[int]) -> str:
        """Ids to text; bytes that are not UTF-8 become U+FFFD."""
        return self._inner.decode(ids, skip_special_tokens=False)


def _byte_level(model: models.BPE) -> _Tokenizer:
    inner = _Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def _first_texts(corpus: Corpus) -> Iterator[str]:
    left = _TRAIN_ON
    for document in corpus.train:
        for text in document.chunks():
            if left <= 0:
                return
            left -= len(text)
            yield text
