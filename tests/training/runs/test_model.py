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
from models.rope import Grid, grid_positions
from models.tokenizer import QwenTokenizer
from models.vlm import VisionLanguageModel
from training.runs.model import TinyModel, exported, tokenizer_in

GRIDS = [Grid(4, 2, 2, 0.5), Grid(4, 2, 2, 0.3)]
CELLS = 4  # of a time
ASKED = [("How far?", ("(1) Front.", "(1) Left."), 0, 4), ("Where is the red car?", (), 1, 4), ("And now?", (), 0, 3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    torch.manual_seed(0)
    config = ModelConfig.tiny()
    directory = tokenizer_in(tmp_path_factory.mktemp("cache"), config.decoder.vocab_size)
    return TinyModel(config, QwenTokenizer(directory)).eval()


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.randint(0, 255, (len(GRIDS), 8, 56, 56, 3), dtype=torch.uint8)


def places(model: TinyModel, grids: list[Grid]) -> Tensor:
    return torch.stack([grid_positions(grid, model.decoder.tokens_per_second) for grid in grids], dim=1)


@torch.no_grad()
def test_a_question_on_a_shared_prefix_gets_the_served_models_logits(model: TinyModel, frames: Tensor) -> None:
    prompts = [build_prompt(model.tokenizer, question, options) for question, options, *_ in ASKED]
    geometry = 0.1 * torch.randn(len(ASKED), 32, model.config.decoder.hidden_size)
    rows = [torch.tensor(prompt.after) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
    prefix = model.prefix(prompts[0].before, model.videos(frames), places(model, GRIDS))
    clip, seen = [c for *_, c, _ in ASKED], [n for *_, n in ASKED]
    tokens = CELLS * torch.tensor(seen)
    last = model.read(prefix, torch.tensor(clip), tokens, geometry, ids, real)[-1]
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        whole = GRIDS[clip[number]]
        grid = Grid(seen[number], whole.rows, whole.columns, whole.seconds_per_time)
        video = model.decoder.see(frames[clip[number]][: 2 * grid.times])
        alone = model.decoder.logits([model.decoder.compose(prompt, grid, video, geometry[number])], last_only=True)[0]
        torch.testing.assert_close(last[number, len(row) - 1] @ model.embeddings.T, alone[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_geometry_of_part_of_a_clip_is_that_of_the_cut_clip(model: TinyModel) -> None:
    features = torch.randn(2, 8, 16, 192)
    text = torch.tensor([[300, 301, 0], [302, 0, 0], [303, 304, 305]])
    real = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    clip, seen = torch.tensor([0, 1, 0]), CELLS * torch.tensor([4, 4, 2])
    tokens = model.geometry(features, 2, places(model, GRIDS), clip, seen, text, real)
    cut = Grid(2, 2, 2, GRIDS[0].seconds_per_time)
    memory = model.selector.project(model.selector.remember(features[0, :4], cut), cut)
    alone = model.selector.select([model.embeddings[text[2]]], [memory]).tokens
    torch.testing.assert_close(tokens[2:], alone)


def test_gradients_reach_the_prefix_but_not_the_vision_tower(model: TinyModel, frames: Tensor) -> None:
    prompt = build_prompt(model.tokenizer, "How far?")
    prefix = model.prefix(prompt.before, model.videos(frames[:1]), places(model, GRIDS[:1]))
    ids = torch.tensor([prompt.after])
    clip, seen, nothing = torch.tensor([0]), torch.tensor([4 * CELLS]), torch.zeros(1, 32, 192)
    hidden = model.read(prefix, clip, seen, nothing, ids, torch.ones_like(ids, dtype=torch.bool))
    hidden[-1].sum().backward()  # type: ignore[no-untyped-call]
    language = model.decoder.model.model.language_model
    assert language.layers[0].self_attn.k_proj.weight.grad is not None
    assert all(parameter.grad is None for parameter in model.decoder.model.model.visual.parameters())


def test_what_is_exported_can_be_served(model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.config.encoder is not None
    monkeypatch.setattr("training.sample.write_sample", lambda directory: directory.mkdir())  # ten seconds of rendering
    exported(tmp_path, model, ImageEncoder(model.config.encoder), {"run": {"name": "test"}})
    loaded = VisionLanguageModel.load(str(tmp_path))
    assert loaded.selector is not None
    torch.testing.assert_close(loaded.selector.queries, model.selector.queries.float())
    assert checkpoint.open_layout(tmp_path).model == model.config
