"""The tokenizer of a checkpoint, as the prompt builder needs it: user text can never become a special token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from models.errors import CheckpointError
from models.prompt import SpecialTokens


class QwenTokenizer:
    """Wraps `tokenizer.json`. Safe to share between threads: its settings are fixed here and never changed."""

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the decoder directory needs its tokenizer")
        self._tokenizer = FastTokenizer.from_file(str(path))
        # Without this, text that spells "<|im_end|>" is encoded as the token that ends a turn.
        self._tokenizer.encode_special_tokens = True
        try:
            self.special = SpecialTokens.from_vocabulary(self._tokenizer.get_vocab(with_added_tokens=True))
        except KeyError as missing:
            raise CheckpointError(f"{path} lacks the special token {missing}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)
