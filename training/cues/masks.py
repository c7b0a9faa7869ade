"""Masks through time by SAM 2 for videos (arXiv 2408.00714), from transformers.

Its pictures and prompts are prepared here, as its processor does: transformers' own needs torchvision.

Legend: F frames, H, W sides of a frame, N things, S the model's side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

from models.config import IMAGENET_MEAN, IMAGENET_STD
from training.cues.estimators import Facts, Footage, Masks
from training.cues.weights import load_strict
from training.questions.cues import FloatArray

BOX = (2, 3)  # labels of a box's two corners among SAM's point prompts


@dataclass(frozen=True)
class Sam2Tracker:
    model: Any
    facts: Facts

    @classmethod
    def load(cls, location: str | Path, device: str) -> Sam2Tracker:
        """CheckpointError when the directory or hub id is no SAM 2 for videos."""
        model, facts = load_strict(Sam2VideoModel, location, device, torch.float32)
        return cls(model, {"kind": "sam2-video", **facts})

    @torch.inference_mode()
    def __call__(self, footage: Footage, frame: int, boxes: FloatArray) -> Masks:
        count, (frames, height, width) = len(boxes), footage.frames.shape[:3]
        masks, present = np.zeros((count, frames, height, width), bool), np.zeros((count, frames))
        for reverse in (False, True):
            session = self._session(footage)
            self._prompt(session, frame, boxes, height, width)
            for out in self.model.propagate_in_video_iterator(session, start_frame_idx=frame, reverse=reverse):
                at = out.frame_idx
                masks[:, at], present[:, at] = self._read(out, height, width)
        return Masks(masks, present)

    def _session(self, footage: Footage) -> Sam2VideoInferenceSession:
        height, width = footage.frames.shape[1:3]
        return Sam2VideoInferenceSession(
            video=self._prepared(footage.frames),
            video_height=height,
            video_width=width,
            inference_device=self.model.device,
            inference_state_device=self.model.device,
            dtype=torch.float32,
        )

    def _prepared(self, frames: np.ndarray) -> Tensor:
        """uint8 [F, H, W, 3] -> normalised [F, 3, S, S]; the aspect is not kept, as in training."""
        images = rearrange(torch.from_numpy(frames), "f h w c -> f c h w").float() / 255
        images = F.interpolate(images, (self._side, self._side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (images - mean) / std

    def _prompt(
        self, session: Sam2VideoInferenceSession, frame: int, boxes: FloatArray, height: int, width: int
    ) -> None:
        scale = self._side / np.array([width, height])
        for number, box in enumerate(boxes):
            corners = torch.from_numpy(box.reshape(2, 2) * scale).float()
            inputs = {
                "point_coords": corners[None, None],
                "point_labels": torch.tensor(BOX, dtype=torch.int32)[None, None],
            }
            session.add_point_inputs(session.obj_id_to_idx(number), frame, inputs)
        session.obj_with_new_inputs = list(range(len(boxes)))

    def _read(self, out: Any, height: int, width: int) -> tuple[np.ndarray, FloatArray]:
        """[N, H, W] and [N] of one frame."""
        logits = F.interpolate(out.pred_masks.float(), (height, width), mode="bilinear")[:, 0]
        score = out.object_score_logits.float().sigmoid().reshape(-1)
        return (logits > 0).cpu().numpy(), score.double().cpu().numpy()

    @property
    def _side(self) -> int:
        side = self.model.config.image_size
        return int(side if isinstance(side, int) else side[0])
