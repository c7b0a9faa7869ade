"""`dsr-7b`: the published recipe on the public data format - merger, Q-Formers and language model learn the letter.

    base (Qwen2.5-VL) ─┐
    π³'s encoder ──────┼─► one clip and question ─► prompt + geometry tokens ─► letter, end of turn
    selector ──────────┘

The recipe (arXiv 2512.20557): one epoch over 50,000 questions, 32 a step, AdamW with weight decay 0.01,
3 % warm-up, cosine, gradients clipped at 1, bfloat16; vision tower and encoder stay as they are.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from models import checkpoint
from models.config import ModelConfig, selector_like
from models.decoder import Decoder, Inputs
from models.encoder import ImageEncoder
from models.errors import InputError
from models.layout import Layout
from models.prompt import build_prompt, letter_ids
from models.selector import Selector
from models.tokenizer import QwenTokenizer
from models.video import Sampling
from models.vlm import clip_frames, clip_grid
from training.data.sets import QuestionSet, Sample, of_records
from training.loop.task import Metrics, Outcome, Rate, Share
from training.runs.recipe import DsrConfig, DsrModel, rates

SHOWN = 5  # missing videos that are named


class DsrTask:
    def __init__(self, config: DsrConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.layout = checkpoint.open_layout(config.base)
        self.tokenizer = QwenTokenizer(self.layout.decoder)
        self.sizes, decoder, self.encoder, selector = _parts(config, self.layout)
        self.module = DsrModel(decoder, selector)
        self.encoder.to(device, torch.bfloat16 if config.loop.precision == "bf16" else torch.float32)
        if not dist.is_initialized():  # otherwise sharding moves each part, so that no GPU ever holds the whole
            self.module.to(device)
        self.asked = _questions(config)
        if len(self.asked.samples) <= config.held:
            raise ValueError(
                f"{config.questions} has {len(self.asked.samples)} questions with videos; held {config.held}"
            )
        split = len(self.asked.samples) - config.held
        self.samples, self.held = self.asked.samples[:split], self.asked.samples[split:]
        self.sampling = Sampling.of(self.layout.model.frames)

    def rates(self) -> Sequence[Rate]:
        return rates(self.config.selector_lr, self.config.lr)

    def batch(self, step: int, share: Share) -> list[int]:
        """Indices of samples. Every epoch has its own order, every sample once."""
        first = step * self.config.batch
        return list(share.of([self._place(first + n) for n in range(self.config.batch)]))

    def loss(self, batch: Sequence[int]) -> Outcome:
        samples, inputs, unreadable = [], [], 0
        for index in batch:
            sample, composed, lost = self._readable(index)
            unreadable += lost
            samples.append(sample)
            inputs.append(composed)
        loss, right = self._answered(samples, inputs)
        count = float(len(samples))
        metrics = {"letter": (right, count), "unreadable": (float(unreadable), count)}
        return Outcome(loss, count, metrics, [sample.id for sample in samples])

    def evaluate(self, step: int) -> Metrics:
        """On every worker the same, one sample after the other: they hold shards of the same module."""
        right, count, unreadable = 0.0, 0.0, 0.0
        for sample in self.held:
            try:
                inputs = self._composed(sample)
            except InputError:
                unreadable += 1
                continue
            right += self._answered([sample], [inputs])[1]
            count += 1
        return {"letter": (right, count), "unreadable": (unreadable, float(len(self.held)))}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.module.decoder.model.model.language_model.layers)

    def export(self, directory: Path, state: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> None:
        """The directory that `serve/` loads, in bfloat16."""
        sizes, decoder, encoder, selector = _parts(self.config, self.layout)
        module = DsrModel(decoder, selector)
        module.load_state_dict(state, assign=True)
        (directory / "decoder").mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.json"):
            if (self.layout.decoder / name).exists():
                shutil.copy(self.layout.decoder / name, directory / "decoder" / name)
        data = {"questions": self.config.questions, "used": len(self.samples), "missing": len(self.asked.missing)}
        for part in (module.decoder.model, encoder, module.selector):
            part.to(torch.bfloat16)
        facts = {"model": sizes.name, "data": data, **manifest}
        checkpoint.write(directory, sizes, module.decoder.model, encoder, module.selector, facts)

    def _place(self, number: int) -> int:
        epoch, place = divmod(number, len(self.samples))
        order = list(range(len(self.samples)))
        Random(f"{self.config.loop.seed}/{epoch}").shuffle(order)
        return order[place]

    def _readable(self, index: int) -> tuple[Sample, Inputs, int]:
        """The sample, or the next one whose video can be read: all workers must have as much to do."""
        for lost in range(len(self.samples)):
            sample = self.samples[(index + lost) % len(self.samples)]
            try:
                return sample, self._composed(sample), lost
            except InputError as error:
                sys.stderr.write(f"{sample.id}: {error}\n")
        raise ValueError(f"no video of {self.config.videos} can be read")

    def _composed(self, sample: Sample) -> Inputs:
        """Prompt and letter. InputError: the video cannot be read."""
        clip = sample.clip(self.sampling)
        grid, frames = clip_grid(clip), clip_frames(clip).to(self.device)
        record, decoder, selector = sample.record, self.module.decoder, self.module.selector
        prompt = build_prompt(self.tokenizer, record.question, record.options)
        with torch.no_grad():
            features = self.encoder(frames)
        memory = selector.project(selector.remember(features.to(decoder.embeddings.dtype), grid), grid)
        geometry = selector.select([decoder.embed(prompt.text_ids)], [memory]).tokens[0]
        inputs = decoder.compose(prompt, grid, decoder.see(frames), geometry)
        letter = decoder.embed([self._letter(sample)]).to(inputs.embeds.dtype)
        return Inputs(
            torch.cat([inputs.embeds, letter]), torch.cat([inputs.positions, inputs.positions[:, -1:] + 1], 1)
        )

    def _letter(self, sample: Sample) -> int:
        return letter_ids(self.tokenizer, len(sample.record.options))[sample.record.right]

    def _answered(self, samples: Sequence[Sample], inputs: Sequence[Inputs]) -> tuple[Tensor, float]:
        """The summed loss of letter and end of turn (half each), and how many letters are right among the options.

        Prompts are padded on the left and see no padding, so each has the loss that it has alone.
        """
        embeds = pad_sequence([one.embeds for one in inputs], batch_first=True, padding_side="left")
        positions = pad_sequence([one.positions.T for one in inputs], batch_first=True, padding_side="left")
        real = [one.positions.new_ones(len(one.embeds)) for one in inputs]
        mask = pad_sequence(real, batch_first=True, padding_side="left")
        logits = self.module.decoder.model(
            inputs_embeds=embeds, position_ids=positions.permute(2, 0, 1), attention_mask=mask, use_cache=False,
            logits_to_keep=2,
        ).logits.float()  # fmt: skip
        letters = [self._letter(sample) for sample in samples]
        wanted = torch.tensor([[letter, self.tokenizer.special.im_end] for letter in letters], device=logits.device)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum") / 2
        right = 0.0
        for row, sample in zip(logits[:, 0].detach(), samples, strict=True):
            options = letter_ids(self.tokenizer, len(sample.record.options))
            right += float(int(row[list(options)].argmax()) == sample.record.right)
        return loss, right


def _parts(config: DsrConfig, layout: Layout) -> tuple[ModelConfig, Decoder, ImageEncoder, Selector]:
    """Sizes and modules, in float32 on the CPU, ready to be trained; ValueError when there is no encoder."""
    sizes, decoder = layout.model, checkpoint.load_decoder(layout)
    if sizes.selector is not None:
        encoder, selector = checkpoint.load_encoder(layout), checkpoint.load_selector(layout)
    elif config.pi3 is not None:
        encoder = checkpoint.load_pi3(Path(config.pi3)).encoder
        sizes = replace(sizes, encoder=encoder.config, selector=selector_like(sizes.decoder, encoder.config))
        selector = Selector(selector_like(sizes.decoder, encoder.config))
    else:
        raise ValueError(f"{layout.path} has no encoder: give pi3, a folder with π³")
    return sizes, decoder, encoder.requires_grad_(False), selector


def _questions(config: DsrConfig) -> QuestionSet:
    """What can be used, with a word on stderr about what can not."""
    asked = of_records(Path(config.questions), Path(config.videos))
    lost = sum(one.questions for one in asked.missing.values())
    names = ", ".join(sorted(asked.missing)[:SHOWN]) + (", …" if len(asked.missing) > SHOWN else "")
    sys.stderr.write(
        f"{len(asked.samples)} questions; {len(asked.missing)} videos missing ({names or 'none'}), with {lost} "
        f"questions; {len(asked.unusable)} rows are no questions\n"
    )
    return asked
