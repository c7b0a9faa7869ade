"""The training forward: many questions on one clip's prefix, each as if it were alone in the served model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import checkpoint
from models.config import ModelConfig
from models.encoder import ImageEncoder
from models.prompt import build_prompt
from models.rope import Grid
from models.vlm import VisionLanguageModel
from training.runs.model import TinyModel, exported, tokenizer_in

GRIDS = [Grid(4, 2, 2, 0.5), Grid(4, 2, 2, 0.3)]
ASKED = [("How far?", ("(1) Front.", "(1) Left."), 0, 4), ("Where is the red car?", (), 1, 4), ("And now?", (), 0, 3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    torch.manual_seed(0)
    config = ModelConfig.tiny()
    return TinyModel(config, tokenizer_in(tmp_path_factory.mktemp("cache"), config.decoder.vocab_size)).eval()


@pytest.fixture(scope="module")
def frames() -> list[Tensor]:
    return [torch.randint(0, 255, (8, 56, 56, 3), dtype=torch.uint8) for _ in GRIDS]


@torch.no_grad()
def test_a_question_on_a_shared_prefix_gets_the_served_models_logits(model: TinyModel, frames: list[Tensor]) -> None:
    prompts = [build_prompt(model.tokenizer, question, options) for question, options, *_ in ASKED]
    geometry = 0.1 * torch.randn(len(ASKED), 32, model.config.decoder.hidden_size)
    rows = [torch.tensor(prompt.after) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
    prefix = model.prefix(prompts[0].before, frames, GRIDS)
    clip, seen = [c for *_, c, _ in ASKED], [n for *_, n in ASKED]
    last = model.read(prefix, clip, seen, geometry, ids, real)[-1]
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        whole = GRIDS[clip[number]]
        grid = Grid(seen[number], whole.rows, whole.columns, whole.seconds_per_time)
        video = model.decoder.see(frames[clip[number]][: 2 * grid.times])
        alone = model.decoder.logits([model.decoder.compose(prompt, grid, video, geometry[number])], last_only=True)[0]
        torch.testing.assert_close(last[number, len(row) - 1] @ model.embeddings.T, alone[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_geometry_of_part_of_a_clip_is_that_of_the_cut_clip(model: TinyModel) -> None:
    features = [torch.randn(8, 16, 128), torch.randn(8, 16, 128)]
    text = [torch.tensor([300, 301]), torch.tensor([302]), torch.tensor([303, 304, 305])]
    tokens = model.geometry(features, GRIDS, [0, 1, 0], [4, 4, 2], text)
    cut = Grid(2, 2, 2, GRIDS[0].seconds_per_time)
    alone = model.geometry([features[0][:4]], [cut], [0], [2], text[2:])
    torch.testing.assert_close(tokens[2:], alone)


def test_gradients_reach_the_prefix_but_not_the_vision_tower(model: TinyModel, frames: list[Tensor]) -> None:
    prompt = build_prompt(model.tokenizer, "How far?")
    prefix = model.prefix(prompt.before, frames[:1], GRIDS[:1])
    ids = torch.tensor([prompt.after])
    hidden = model.read(prefix, [0], [4], torch.zeros(1, 32, 192), ids, torch.ones_like(ids, dtype=torch.bool))
    hidden[-1].sum().backward()  # type: ignore[no-untyped-call]
    language = model.decoder.model.model.language_model
    assert language.layers[0].self_attn.k_proj.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.decoder.model.model.visual.parameters())


def test_what_is_exported_can_be_served(model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.config.encoder is not None
    monkeypatch.setattr(
        "training.runs.model.write_sample", lambda directory: directory.mkdir()
    )  # ten seconds of rendering
    exported(tmp_path, model, ImageEncoder(model.config.encoder), {"run": {"name": "test"}})
    loaded = VisionLanguageModel.load(str(tmp_path))
    assert loaded.selector is not None
    torch.testing.assert_close(loaded.selector.queries, model.selector.queries.float())
    assert checkpoint.open_layout(tmp_path).model == model.config
