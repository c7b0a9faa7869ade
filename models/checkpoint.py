"""Reading and writing checkpoints: strict, memory-mapped, every stage alone.

Whatever the layout (`models.layout`), `load_encoder`, `load_selector`, `load_embeddings` and `load_decoder` read only
their own tensors. A missing, unexpected or misshapen tensor is a `CheckpointError` that names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.config import EncoderConfig, ModelConfig
from models.decoder import Decoder
from models.encoder import ImageEncoder, encoder_of
from models.errors import CheckpointError
from models.layout import Files, Layout, opened, read_json, recognise, sha256
from models.pi3 import IGNORED_KEYS, Pi3, Pi3Config
from models.selector import Selector
from models.strict import filled, pretrained

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration

Rules = Sequence[tuple[str, str]]

# Foreign key → ours, as (pattern, replacement); the first match counts. transformers 5 may put `model.` in front.
RELEASED_ENCODER: Rules = [(r"^(?:model\.)?visual\.spatial_encoder\.", "")]
RELEASED_SELECTOR: Rules = [
    (r"^(?:model\.)?visual\.spatial_merger\.", "merger."),
    (r"^(?:model\.)?visual\.q_former_queries$", "queries"),
    (r"^(?:model\.)?visual\.q_former_norm\.", "norm."),
    (r"^(?:model\.)?visual\.(q_former_[12])\.", r"\1."),
]
PI3_ENCODER: Rules = [(r"^encoder\.", "")]
EVERYTHING: Rules = [(r"^", "")]
EMBEDDINGS = re.compile(r"^(?:model\.)?(?:language_model\.)?(?:model\.)?embed_tokens\.weight$")

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "decoder/*"]


def locate(location: str | Path) -> Path:
    """A local directory as it is; `owner/name` or `owner/name@revision` from the Hugging Face hub or its cache."""
    path = Path(location).expanduser()
    if str(location) and path.exists():
        return path
    hub = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", str(location))
    if hub is None:
        raise CheckpointError(f"{str(location)!r}: no such directory, and not a hub id of the form owner/name")
    from huggingface_hub import snapshot_download  # a dependency of transformers, needed for hub ids only

    try:
        return Path(snapshot_download(hub[1], revision=hub[2], allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client raises many kinds; all mean that the checkpoint is not to be had
        raise CheckpointError(f"{location}: no such directory, and the hub did not deliver it ({error})") from error


def load_encoder(layout: Layout, device: str = "cpu", dtype: torch.dtype = torch.float32) -> ImageEncoder:
    """The image encoder of any layout that has one."""
    if layout.kind == "pi3":
        config: EncoderConfig | None = _pi3_config(layout.path).encoder
        files, rules = Files(layout.path), PI3_ENCODER
    else:
        config = layout.model.encoder
        files, rules = _stage_files(layout, "encoder.safetensors", RELEASED_ENCODER)
    if config is None:
        raise CheckpointError(f"{layout.path} has no encoder: a base model answers without geometry")
    return filled(lambda: encoder_of(config), _read(files, rules), f"{layout.path}: the encoder", device, dtype)


def load_selector(layout: Layout, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Selector:
    """Merger, queries and Q-Formers."""
    config = layout.model.selector
    if config is None:
        raise CheckpointError(f"{layout.path} has no selector: a base model answers without geometry")
    files, rules = _stage_files(layout, "selector.safetensors", RELEASED_SELECTOR)
    return filled(lambda: Selector(config), _read(files, rules), f"{layout.path}: the selector", device, dtype)


def load_embeddings(layout: Layout) -> Tensor:
    """The input embeddings [vocabulary, D] in their file's dtype, mapped: only rows that are read cost memory."""
    files = Files(layout.decoder)
    key = next((key for key in files.where if EMBEDDINGS.match(key)), None)
    if key is None:
        raise CheckpointError(f"{layout.decoder} has no embed_tokens.weight")
    with opened(files.where[key]) as file:
        return file.get_tensor(key)


def load_decoder(layout: Layout, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Decoder:
    """Vision tower and language model, read by transformers from the decoder's directory."""
    from transformers import Qwen2_5_VLForConditionalGeneration  # late, as `models.decoder` says

    tokens_per_second = layout.model.decoder.tokens_per_second
    others = [*RELEASED_ENCODER, *RELEASED_SELECTOR] if layout.kind == "released" else []

    def of_another_stage(key: str) -> bool:
        return any(re.match(pattern, key) for pattern, _ in others)

    where = f"{layout.decoder}: the decoder"
    model = pretrained(Qwen2_5_VLForConditionalGeneration, layout.decoder, dtype, where, of_another_stage)
    if model.generation_config.eos_token_id is None:
        raise CheckpointError(f"{layout.decoder} states no eos_token_id, so no answer would end")
    return Decoder(model.to(device), tokens_per_second).eval().requires_grad_(False)


def load_pi3(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Pi3:
    """The whole π³ from a directory with `model.safetensors`; of published size unless a config.json says otherwise."""
    config = _pi3_config(path)
    return filled(lambda: Pi3(config), _read(Files(path), EVERYTHING), f"{path}: π³", device, dtype)


def write(
    directory: Path,
    config: ModelConfig,
    decoder: Qwen2_5_VLForConditionalGeneration,
    encoder: ImageEncoder | None = None,
    selector: Selector | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Writes our layout, but for the tokenizer, whose files the caller puts into `decoder/` before.

    `manifest` says where the weights come from (run, data, metrics, licence); sizes and hashes are added here.
    """
    for name, module, sizes in (("encoder", encoder, config.encoder), ("selector", selector, config.selector)):
        if (module is None) != (sizes is None):
            raise CheckpointError(f"{name}: give both weights and sizes in the config, or neither")
    directory.mkdir(parents=True, exist_ok=True)
    for name, module in (("encoder", encoder), ("selector", selector)):
        if module is not None:
            save_file({k: v.contiguous() for k, v in module.state_dict().items()}, directory / f"{name}.safetensors")
    decoder.save_pretrained(directory / "decoder")
    for path in directory.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors lets only the writer read them, and a service often runs as somebody else
    data = {
        "name": config.name,
        "frames": config.frames.to_json(),
        "encoder": config.encoder.to_json() if config.encoder else None,
        "selector": config.selector.to_json() if config.selector else None,
    }
    (directory / "config.json").write_text(json.dumps(data, indent=1) + "\n")
    facts = {**(manifest or {}), "files": hashes(directory)}
    (directory / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def hashes(directory: Path) -> dict[str, str]:
    """sha256 of every file that decides an answer, by its name in the directory."""
    kinds = {".safetensors", ".json", ".txt", ".jinja"}
    files = sorted(p for p in directory.rglob("*") if p.suffix in kinds and p.name != "manifest.json")
    return {p.relative_to(directory).as_posix(): sha256(p) for p in files}


def open_layout(location: str | Path) -> Layout:
    """`locate` and `recognise` in one."""
    return recognise(locate(location))


def refuse_damaged(layout: Layout, part: str) -> None:
    """The files of our layout whose names begin with `part`, and its config, are those that its manifest was made of.
    Another layout, or one without a manifest, has nothing to compare with. CheckpointError names the file.

    A flipped bit in a weight seldom makes an error: it makes wrong answers. A gigabyte takes about a second.
    """
    manifest = layout.path / "manifest.json"
    if layout.kind != "ours" or not manifest.is_file():
        return
    for name, stated in read_json(manifest).get("files", {}).items():
        if not name.startswith(part) and name != "config.json":
            continue
        file = layout.path / name
        found = sha256(file) if file.is_file() else "missing"
        if found != stated:
            raise CheckpointError(f"{file} is damaged: its sha256 is {found}, the manifest states {stated}")


def _pi3_config(path: Path) -> Pi3Config:
    """The sizes beside the weights, in the form of our fixtures; the published ones where there are none."""
    config = path / "config.json"
    data = read_json(config) if config.is_file() else {}
    return Pi3Config.from_json(data) if "heads" in data else Pi3Config.published()


def _stage_files(layout: Layout, own: str, released: Rules) -> tuple[Files, Rules]:
    return (Files(layout.path, own), EVERYTHING) if layout.kind == "ours" else (Files(layout.path), released)


def _read(files: Files, rules: Rules) -> dict[str, Tensor]:
    """Maps the tensors that a rule names, under our names. Their bytes stay on disk until they are used."""
    renamed: dict[Path, dict[str, str]] = {}
    for key, path in files.where.items():
        rule = next((rule for rule in rules if re.match(rule[0], key)), None)
        if rule is not None:
            renamed.setdefault(path, {})[key] = re.sub(*rule, key, count=1)
    tensors: dict[str, Tensor] = {}
    for path, names in renamed.items():
        with opened(path) as file:
            tensors |= {ours: file.get_tensor(theirs) for theirs, ours in names.items() if ours not in IGNORED_KEYS}
    return tensors
