"""The wrapped Qwen2.5-VL: no prompt depends on its neighbours, on earlier calls, or on sampling settings in a file.

Legend: F frames, V video tokens, Q geometry tokens, L prompt, D width.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint import load_decoder
from models.decoder import Decoder, Inputs, patchify
from models.errors import CheckpointError
from models.layout import Layout, recognise
from models.prompt import Prompt, SpecialTokens
from models.rope import Grid

SPECIAL = SpecialTokens(1, 2, 3, 4, 5, 6, 7, 8)
GRIDS = [Grid(5, 2, 3, seconds_per_time=2.0), Grid(1, 2, 2, seconds_per_time=0.4), Grid(3, 1, 4, seconds_per_time=7.0)]
LENGTHS = [9, 30, 4]
# Of the largest magnitude: padding changes the order in which float32 (eps 1.2e-7) is summed. Measured 1e-6.
FLOAT32 = 1e-5


@pytest.fixture(scope="module")
def decoder(released: Layout) -> Decoder:
    return load_decoder(released)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def frames_of(grid: Grid) -> Tensor:
    shape = (2 * grid.times, 28 * grid.rows, 28 * grid.columns, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(grid.size))


def prompt_of(length: int) -> Prompt:
    """A prompt with `length` random tokens of text after the video."""
    text = torch.randint(9, 512, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    return Prompt((2, 20, 21, 3, 2, 22, 4), (5, *text, 3, 2, 23), SPECIAL)


def inputs_of(decoder: Decoder, grid: Grid, length: int, geometry: bool = True) -> Inputs:
    tokens = torch.randn(32, 64, generator=torch.Generator().manual_seed(length)) if geometry else None
    return decoder.compose(prompt_of(length), grid, decoder.see(frames_of(grid)), tokens)


@pytest.fixture(scope="module")
def batch(decoder: Decoder) -> list[Inputs]:
    """Prompts of different clips, lengths and numbers of geometry tokens."""
    pairs = enumerate(zip(GRIDS, LENGTHS, strict=True))
    with torch.inference_mode():
        return [inputs_of(decoder, grid, length, geometry=index != 1) for index, (grid, length) in pairs]


def deviation(ours: Tensor, expected: Tensor) -> float:
    assert ours.shape == expected.shape
    return float((ours - expected).abs().max() / expected.abs().max())


def greedy(decoder: Decoder, inputs: Inputs, max_tokens: int) -> list[int]:
    """Token by token over the whole prompt, without a cache."""
    ids: list[int] = []
    while len(ids) < max_tokens and not decoder.end_ids & set(ids):
        ids.append(int(decoder.logits([inputs], last_only=True)[0][0].argmax()))
        position = inputs.positions.max() + 1
        inputs = Inputs(
            torch.cat([inputs.embeds, decoder.embed(ids[-1:])]),
            torch.cat([inputs.positions, position.expand(3, 1)], dim=1),
        )
    return ids


def test_patches_equal_those_of_qwens_processor_bit_by_bit(gsm: Path) -> None:
    inputs = load_file(gsm / "inputs.safetensors")
    pixels, grid = patchify(inputs["frames"])
    assert torch.equal(pixels, inputs["pixel_values_videos"])
    assert torch.equal(grid, inputs["video_grid_thw"])


def test_embeddings_are_rows_of_the_table(decoder: Decoder) -> None:
    assert decoder.embeddings.shape == (512, 64)
    assert torch.equal(decoder.embed([7, 3, 7]), decoder.embeddings[[7, 3, 7]])
    assert decoder.embed([]).shape == (0, 64)


def test_compose_puts_geometry_between_the_video_and_its_end(decoder: Decoder) -> None:
    grid, prompt = GRIDS[0], prompt_of(4)
    video, geometry = torch.full((grid.size, 64), 2.0), torch.full((3, 64), 3.0)
    inputs = decoder.compose(prompt, grid, video, geometry)
    expected = torch.cat([decoder.embed(prompt.before), video, geometry, decoder.embed(prompt.after)])
    assert torch.equal(inputs.embeds, expected)
    first = 7 + 4 * 4 + 1  # seven tokens before, five grid times of two seconds at two positions per second
    assert inputs.positions[:, 7 + grid.size :].tolist() == [list(range(first, first + 3 + len(prompt.after)))] * 3


def test_logits_do_not_depend_on_neighbours(decoder: Decoder, batch: list[Inputs]) -> None:
    together = decoder.logits(batch)
    for item, row in zip(batch, together, strict=True):
        assert row.shape == (len(item.embeds), 512)
        assert deviation(row, decoder.logits([item])[0]) < FLOAT32


def test_the_last_logits_do_not_depend_on_neighbours(decoder: Decoder, batch: list[Inputs]) -> None:
    together = decoder.logits(batch, last_only=True)
    for item, row in zip(batch, together, strict=True):
        assert row.shape == (1, 512)
        assert deviation(row, decoder.logits([item])[0][-1:]) < FLOAT32


def test_choice_is_the_softmax_over_the_letters(decoder: Decoder, batch: list[Inputs]) -> None:
    letters = [[30, 31, 32, 33], [33, 30], [40, 41, 42]]
    chosen = decoder.choose(batch, letters)
    for item, ids, probabilities in zip(batch, letters, chosen, strict=True):
        expected = decoder.logits([item])[0][-1][ids].softmax(dim=0)
        torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-5)
        assert float(probabilities.sum()) == pytest.approx(1.0)
        assert len(set(probabilities.tolist())) == len(ids)


def test_generated_tokens_are_the_greedy_ones_whatever_the_neighbours(decoder: Decoder, batch: list[Inputs]) -> None:
    """Against a loop without keys and values: positions after the prompt go on from its largest one."""
    together = decoder.generate(batch, max_tokens=12)
    for item, ids in zip(batch, together, strict=True):
        assert len(ids) == 12
        assert ids == greedy(decoder, item, 12)
        assert ids == decoder.generate([item], max_tokens=12)[0]
    assert len({tuple(ids) for ids in together}) == len(batch)


def test_generation_stops_with_the_end_token(gsm: Path, tmp_path: Path, decoder: Decoder, batch: list[Inputs]) -> None:
    """Each prompt at its own place, and nothing after it, also when its neighbours go on."""
    free = decoder.generate(batch, max_tokens=12)
    end = next(token for token in free[0][2:] if token not in free[0][:2])
    directory = Path(shutil.copytree(gsm, tmp_path / "copy"))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 3]}))
    stopping = load_decoder(recognise(directory))
    assert stopping.end_ids == {end, 3}
    expected = [ids[: ids.index(end) + 1] if end in ids else ids for ids in free]
    assert stopping.generate(batch, max_tokens=12) == expected
    assert len(expected[0]) < 12
    assert [stopping.generate([item], max_tokens=12)[0] for item in batch] == expected


def test_sampling_settings_in_the_checkpoint_do_not_change_greedy_tokens(
    gsm: Path, tmp_path: Path, decoder: Decoder, batch: list[Inputs]
) -> None:
    """Qwen2.5-VL's published file has a repetition penalty of 1.05, sampling, and its own temperature."""
    directory = Path(shutil.copytree(gsm, tmp_path / "copy"))
    settings = {"repetition_penalty": 2.0, "do_sample": True, "temperature": 0.1, "top_k": 1, "eos_token_id": 3}
    (directory / "generation_config.json").write_text(json.dumps(settings))
    other = load_decoder(recognise(directory))
    assert other.generate(batch, max_tokens=12) == decoder.generate(batch, max_tokens=12)


def test_a_checkpoint_whose_answers_would_not_end_is_refused(gsm: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(gsm, tmp_path / "copy"))
    config = json.loads((directory / "config.json").read_text())
    del config["eos_token_id"]
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="states no eos_token_id"):
        load_decoder(recognise(directory))


def test_calls_do_not_depend_on_earlier_ones(decoder: Decoder, batch: list[Inputs]) -> None:
    """transformers keeps `rope_deltas` on the model; a call with token ids and pixels sets them."""
    first = decoder.logits(batch[:1])[0], decoder.generate(batch[:1], max_tokens=6)
    grid = GRIDS[2]
    ids = prompt_of(5).input_ids(grid.size, 0)
    pixels, patches = patchify(frames_of(grid))
    decoder.model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        mm_token_type_ids=torch.tensor([[2 * (token == SPECIAL.video_pad) for token in ids]]),
        pixel_values_videos=pixels,
        video_grid_thw=patches,
        second_per_grid_ts=torch.tensor([grid.seconds_per_time]),
        max_new_tokens=2,
        pad_token_id=3,
    )
    assert decoder.model.model.rope_deltas is not None
    assert int(decoder.model.model.rope_deltas) != 0
    decoder.generate(batch[1:], max_tokens=3)
    assert torch.equal(decoder.logits(batch[:1])[0], first[0])
    assert decoder.generate(batch[:1], max_tokens=6) == first[1]


def test_positions_reach_the_attention(decoder: Decoder, batch: list[Inputs]) -> None:
    """The same embeddings at one-dimensional positions are another prompt."""
    flat = torch.arange(len(batch[0].embeds)).expand(3, -1)
    assert deviation(decoder.logits([Inputs(batch[0].embeds, flat)])[0], decoder.logits(batch[:1])[0]) > 1e-3


def test_a_uniform_shift_of_the_positions_changes_nothing(decoder: Decoder, batch: list[Inputs]) -> None:
    shifted = Inputs(batch[0].embeds, batch[0].positions + 500)
    # An angle near 500 is exact to 3e-5 in float32. Measured 2e-6.
    assert deviation(decoder.logits([shifted])[0], decoder.logits(batch[:1])[0]) < 5e-5
