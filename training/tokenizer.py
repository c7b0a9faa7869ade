"""Trains the small tokenizer of the embedded checkpoint: `python -m training.tokenizer DIRECTORY`.

It differs from Qwen2.5-VL's only in its vocabulary, so every program that reads Qwen2.5-VL directories reads this one:
byte-level BPE over the same pieces (a digit is a piece; a space belongs to the word after it), the same special tokens
where we need them, the same file names and a chat template that writes the same prompts. The phrases of the questions
are added tokens, as Qwen's `<tool_call>` is one: a prompt is half as long with them.
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import ByteLevel as ByteLevelOffsets
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Tokenizer

from training.vocabulary import corpus, phrases

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
SIZE_MULTIPLE = 64

# In effect Qwen2.5-VL's template for text, videos and images; an unknown part is an error here, not silence.
CHAT_TEMPLATE = r"""
{%- if messages[0]['role'] != 'system' -%}
  {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {{- '<|im_start|>' + message['role'] + '\n' -}}
  {%- if message['content'] is string -%}
    {{- message['content'] -}}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'video' or 'video' in part -%}
        {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
      {%- elif part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- elif 'text' in part -%}
        {{- part['text'] -}}
      {%- else -%}
        {{- raise_exception('unknown part of a message: ' + part['type']) -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""


def train_tokenizer(vocab_size: int = 1280, seed: int = 0) -> Tokenizer:
    """A tokenizer of exactly `vocab_size` entries: 256 bytes, merges, `phrases()`, and `SPECIAL_TOKENS` at the end.

    The same arguments give the same tokenizer. `decode(encode(text))` is the NFC form of any text.

    Raises:
        ValueError: `vocab_size` is no multiple of 64, too small for the option letters A to Z to be single tokens with
            and without a space, or larger than the corpus can fill.
    """
    if vocab_size % SIZE_MULTIPLE:
        raise ValueError(f"vocab_size {vocab_size} is not a multiple of {SIZE_MULTIPLE}")
    tokenizer = _like_qwen()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(phrases()) - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed=seed), trainer)
    # Added after the training, as in Qwen, so that no merge depends on them and their ids are the last ones.
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    _check(tokenizer, vocab_size)
    return tokenizer


def save_tokenizer(directory: Path, vocab_size: int = 1280, seed: int = 0) -> None:
    """Trains and writes the tokenizer files of a Qwen2.5-VL directory: `tokenizer.json`, `vocab.json`, `merges.txt`,
    `tokenizer_config.json` and `chat_template.json`. The directory is made if need be; other files are left alone."""
    tokenizer = train_tokenizer(vocab_size, seed)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=True)
    tokenizer.model.save(str(directory))
    _write_json(directory / "tokenizer_config.json", _config(tokenizer))
    _write_json(directory / "chat_template.json", {"chat_template": CHAT_TEMPLATE})


def _like_qwen() -> Tokenizer:
    """An empty BPE tokenizer with the normaliser and the splitting that transformers gives every Qwen2 tokenizer.

    They are taken from there because transformers rebuilds them when it loads the files, whatever the files say.
    """
    qwen = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = qwen.normalizer
    tokenizer.pre_tokenizer = qwen.pre_tokenizer
    tokenizer.decoder = qwen.decoder
    tokenizer.post_processor = ByteLevelOffsets(add_prefix_space=False, trim_offsets=False, use_regex=False)
    return tokenizer


def _check(tokenizer: Tokenizer, vocab_size: int) -> None:
    split = [letter for letter in string.ascii_uppercase if len(tokenizer.encode(f" {letter}").ids) != 1]
    if split:
        raise ValueError(f"vocab_size {vocab_size} is too small: the option letters {''.join(split)} are not one token")
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size != vocab_size:
        raise ValueError(f"vocab_size {vocab_size} is larger than the corpus can fill: it gives {size} entries")


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = dict.fromkeys(phrases(), False) | dict.fromkeys(SPECIAL_TOKENS, True)
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {"content": token, **flags, "special": special}
            for token, special in added.items()
        },
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the small Qwen2.5-VL-like tokenizer into a directory.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vocab-size", type=int, default=1280)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    save_tokenizer(arguments.directory, arguments.vocab_size, arguments.seed)


if __name__ == "__main__":
    main()
