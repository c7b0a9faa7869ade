"""The model in one process: what an answer is, what it depends on, and what it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.checkpoint import load_decoder, load_encoder, load_selector
from models.errors import CheckpointError, InvalidQuestion
from models.layout import Layout
from models.prompt import Prompt, build_prompt, letter_ids
from models.rope import Grid
from models.tokenizer import QwenTokenizer
from models.video import Clip, Sampling, VideoFacts
from models.vlm import VisionLanguageModel, clip_frames, clip_grid

QUESTION = "How does the distance between the red ball and the camera change?"
OPTIONS = ("Become smaller.", "Become larger.", "Keep nearly constant.", "None of these.")
# Padding a batch changes the order in which float32 (eps 1.2e-7) is summed; of probabilities near 1/4. Measured 6e-8.
FLOAT32 = 2e-6


def clip_of(frames: np.ndarray, interval: float = 0.5) -> Clip:
    count, height, width, _ = frames.shape
    facts = VideoFacts(count * interval, 1 / interval, width, height, count, "h264", "mp4", 0)
    return Clip(frames, np.arange(count) * interval, facts, count, Sampling(count))


def noise(count: int = 4, height: int = 56, width: int = 84, seed: int = 0) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    frames.flags.writeable = False  # as frames from shared memory are
    return clip_of(frames)


@pytest.fixture(scope="module")
def model(small: Path) -> VisionLanguageModel:
    return VisionLanguageModel.load(str(small))


@pytest.fixture(scope="module")
def base(small: Path, tmp_path_factory: pytest.TempPathFactory, model: VisionLanguageModel) -> VisionLanguageModel:
    """The same decoder in a plain Qwen2.5-VL directory."""
    directory = tmp_path_factory.mktemp("base") / "qwen"
    shutil.copytree(small / "decoder", directory)
    return VisionLanguageModel.load(str(directory))


def test_with_options_the_answer_is_the_most_probable_letter(model: VisionLanguageModel) -> None:
    answer = model.answer(noise(), QUESTION, OPTIONS)
    assert answer.probabilities is not None
    assert list(answer.probabilities) == ["A", "B", "C", "D"]
    assert sum(answer.probabilities.values()) == pytest.approx(1.0)
    assert answer.text == max(answer.probabilities, key=lambda letter: (answer.probabilities or {})[letter])
    assert answer.completion_tokens == 1


def test_probabilities_are_those_of_the_letters_among_all_tokens(model: VisionLanguageModel) -> None:
    clip, prompt = noise(), build_prompt(model.tokenizer, QUESTION, OPTIONS)
    inputs = model.compose(clip, prompt)
    with torch.inference_mode():
        last = model.decoder.logits([inputs])[0][-1]
    expected = last[letter_ids(model.tokenizer, 4)].softmax(dim=0).tolist()
    answer = model.answer(clip, QUESTION, OPTIONS)
    assert list((answer.probabilities or {}).values()) == pytest.approx(expected, abs=FLOAT32)
    assert answer.prompt_tokens == len(inputs.embeds) == len(prompt.input_ids(2 * 2 * 3, 32))


def test_without_options_the_answer_is_greedy_text(model: VisionLanguageModel) -> None:
    answer = model.answer(noise(), QUESTION, max_tokens=5)
    [ids] = model.decoder.generate([model.compose(noise(), build_prompt(model.tokenizer, QUESTION))], 5)
    assert answer.text == model.tokenizer.decode(ids).strip()
    assert answer.text
    assert answer.probabilities is None
    assert answer.completion_tokens == len(ids) <= 5


def test_the_golden_prompt_gets_the_released_answer(gsm: Path, released: Layout, tokenizer: QwenTokenizer) -> None:
    inputs, outputs = load_file(gsm / "inputs.safetensors"), load_file(gsm / "outputs.safetensors")
    stages = load_decoder(released), load_encoder(released), load_selector(released)
    model = VisionLanguageModel(released.model, tokenizer, *stages)
    clip = clip_of(inputs["frames"].numpy(), interval=float(inputs["second_per_grid_ts"][0]) / 2)
    assert released.special is not None
    prompt = Prompt.from_ids(inputs["input_ids"][0].tolist(), released.special)
    expected = outputs["generated_ids"].tolist()
    assert model.decoder.generate([model.compose(clip, prompt)], len(expected)) == [expected]


def test_geometry_off_leaves_the_geometry_tokens_out(model: VisionLanguageModel) -> None:
    on = model.answer(noise(), QUESTION, OPTIONS)
    off = model.answer(noise(), QUESTION, OPTIONS, geometry=False)
    assert on.prompt_tokens - off.prompt_tokens == 32
    assert on.probabilities != pytest.approx(off.probabilities, abs=1e-3)


def test_a_base_model_answers_as_the_whole_one_without_geometry(
    base: VisionLanguageModel, model: VisionLanguageModel
) -> None:
    assert base.encoder is None
    assert base.selector is None
    for options in ((), OPTIONS):
        off = model.answer(noise(), QUESTION, options, geometry=False, max_tokens=5)
        assert base.answer(noise(), QUESTION, options, max_tokens=5) == off
    with pytest.raises(ValueError, match="has neither encoder nor selector"):
        base.select(clip_frames(noise()), clip_grid(noise()), build_prompt(base.tokenizer, QUESTION))


def test_an_answer_does_not_depend_on_batch_neighbours(model: VisionLanguageModel) -> None:
    """Clips and questions of different sizes, with and without geometry, in one batch."""
    cases = [
        (noise(), QUESTION, OPTIONS, True),
        (noise(8, 28, 112, seed=1), "Which moves?", ("the ball", "the cube"), True),
        (noise(2, 84, 28, seed=2), QUESTION, OPTIONS[:3], False),
    ]
    inputs = [model.compose(c, build_prompt(model.tokenizer, q, o), geometry) for c, q, o, geometry in cases]
    letters = [letter_ids(model.tokenizer, len(options)) for _, _, options, _ in cases]
    with torch.inference_mode():
        together = model.decoder.choose(inputs, letters)
    for probabilities, (clip, question, options, geometry) in zip(together, cases, strict=True):
        alone = model.answer(clip, question, options, geometry=geometry)
        assert probabilities.tolist() == pytest.approx(list((alone.probabilities or {}).values()), abs=FLOAT32)


def test_an_answer_depends_on_the_clip_its_pace_and_the_question(model: VisionLanguageModel) -> None:
    def probabilities(clip: Clip, question: str = QUESTION) -> list[float]:
        return list((model.answer(clip, question, OPTIONS).probabilities or {}).values())

    first = probabilities(noise())
    others = [noise(seed=1), clip_of(noise().frames, interval=4.0), clip_of(noise().frames[::-1].copy())]
    for other in others:
        assert probabilities(other) != pytest.approx(first, abs=1e-3)
    assert probabilities(noise(), "Does it rain?") != pytest.approx(first, abs=1e-3)
    assert probabilities(noise()) == first


def test_a_clips_grid_counts_merged_tokens_and_their_seconds(model: VisionLanguageModel) -> None:
    assert clip_grid(noise(6, 56, 84)) == Grid(3, 2, 3, seconds_per_time=1.0)
    assert model.sampling == Sampling(32, None, 3136, 12_544, 28, 2)


def test_frames_are_shared_and_not_copied() -> None:
    clip = noise()
    assert clip_frames(clip).data_ptr() == clip.frames.ctypes.data
    assert np.array_equal(clip_frames(clip).numpy(), clip.frames)


def test_a_refused_question_costs_no_forward_pass(model: VisionLanguageModel) -> None:
    """It is refused before the clip is looked at: this one has no frames."""
    nothing = clip_of(np.zeros((1, 1, 1, 3), dtype=np.uint8))
    with pytest.raises(InvalidQuestion, match="the question is empty"):
        model.answer(nothing, "  ")


def test_bfloat16_gives_nearly_the_same_probabilities(small: Path, model: VisionLanguageModel) -> None:
    rounded = VisionLanguageModel.load(str(small), dtype=torch.bfloat16).answer(noise(), QUESTION, OPTIONS)
    exact = model.answer(noise(), QUESTION, OPTIONS)
    # 8 bits (4e-3) through three networks; of probabilities near 1/4. Measured 8e-4.
    assert (rounded.probabilities or {}) == pytest.approx(exact.probabilities or {}, abs=5e-3)


def test_a_directory_of_pi3_is_no_whole_model() -> None:
    with pytest.raises(CheckpointError, match="holds π³ alone; a whole model is needed"):
        VisionLanguageModel.load(str(Path(__file__).parents[1] / "golden" / "pi3"))
