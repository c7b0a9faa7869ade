"""The tokenizer of a checkpoint, as the prompt builder needs it: user text can never become a special token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as FastTokenizer

from models.errors import CheckpointError
from models.prompt import SpecialTokens


def _letters() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a letter: what Latin-1 prints as it is, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _letters()


class QwenTokenizer:
    """Wraps `tokenizer.json`. Safe to share between threads: nothing in it changes after it was made."""

    def __init__(self, directory: Path) -> None:
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the decoder directory needs its tokenizer")
        self._tokenizer = FastTokenizer.from_file(str(path))
        # Encodes without the special tokens: with them, text that spells "<|im_end|>" would become the token that ends
        # a turn. There is also a flag for this, but pickling and copying lose it.
        self._plain = FastTokenizer(self._tokenizer.model)
        self._plain.normalizer = self._tokenizer.normalizer
        self._plain.pre_tokenizer = self._tokenizer.pre_tokenizer
        # Phrases are added tokens too, but text. Those in "<…>" (Qwen's `<tool_call>`) steer the model: they stay out.
        added = sorted(self._tokenizer.get_added_tokens_decoder().items())
        phrases = {token.content: index for index, token in added if not token.special and token.content[0] != "<"}
        self._phrases = {index for index, token in added if not token.special}
        self._plain.add_tokens([token for _, token in added if token.content in phrases])
        moved = [text for text, index in phrases.items() if self._plain.token_to_id(text) != index]
        if moved:
            raise CheckpointError(f"{path}: the added token {moved[0]!r} does not follow the vocabulary")
        try:
            self.special = SpecialTokens.from_vocabulary(self._tokenizer.get_vocab(with_added_tokens=True))
        except KeyError as missing:
            raise CheckpointError(f"{path} lacks the special token {missing}") from None

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self._plain.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def raw(self, token: int) -> bytes:
        """The bytes that one token stands for, which need not be whole characters; none for a special token."""
        if token in self.special.ids:
            return b""
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        if token in self._phrases:
            return text.encode()
        return bytes(_BYTES[letter] for letter in text)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)
