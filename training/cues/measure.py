"""Frame by frame: where the masks' points are, before anything knows of time.

Legend: F frames, H, W sides of a frame, N things.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from models.scene import is_edge
from training.cues.estimators import Boxes, Estimators, Footage, Geometry, Masks, Names, Orientations
from training.cues.settings import Settings
from training.questions.cues import BoolArray, FloatArray

BINS = 8  # of each colour in a histogram


@dataclass(frozen=True)
class Measured:
    """What the estimators say of one video; lengths in the geometry's own unit, NaN where unknown.

    Of the video: `times` [F]; `size` [2] width, height; `poses` [F, 4, 4]; `up` [3] or NaN; `metric` [];
    `depth` []: the median over all good points, also those on edges, of which small pictures have more; `valid` [F]:
    the share of pixels that are good; `overlap` [F - 1]: the share of a frame's valid points that the next one sees;
    `change` [F - 1]: total variation between their colours.

    Of the things, which `names` [N] name: `agent` [N]; `score` [N] of the detection; `centres` [N, F, 3] in the axes of
    each camera; `points` [N, F]: how many the mean is of; `boxes` [N, F, 4] in the video's pixels; `area` [N, F] share
    of the frame; `present` [N, F]; `forward`, `up_axis` [N, F, 3] in the axes of each camera; `sure` [N, F] of those.
    """

    times: FloatArray
    size: NDArray[np.int64]
    poses: FloatArray
    up: FloatArray
    metric: BoolArray
    depth: FloatArray
    valid: FloatArray
    overlap: FloatArray
    change: FloatArray
    names: NDArray[np.str_]
    agent: BoolArray
    score: FloatArray
    centres: FloatArray
    points: NDArray[np.int64]
    boxes: FloatArray
    area: FloatArray
    present: FloatArray
    forward: FloatArray
    up_axis: FloatArray
    sure: FloatArray

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def measure(footage: Footage, estimators: Estimators, settings: Settings) -> Measured:
    """All estimators, once."""
    names = estimators.namer(footage)
    geometry = estimators.geometer(footage)
    good = geometry.confidence > settings.valid_confidence
    z = geometry.points[..., 2]
    valid = good & ~is_edge(torch.from_numpy(np.ascontiguousarray(z)), settings.edge).numpy()
    found, masks = follow(footage, estimators, names, settings)
    centres, points = _centres(geometry, masks.masks, good, valid, settings)
    agent = np.array([name in names.agents for name in found.names], bool)
    turned = _orientations(footage, estimators, masks.masks, centres, agent)
    height, width = footage.frames.shape[1:3]
    return Measured(
        times=footage.times,
        size=np.array(footage.size),
        poses=geometry.poses,
        up=np.full(3, np.nan) if geometry.up is None else geometry.up,
        metric=np.array(geometry.metric),
        depth=np.array(np.median(z[good]) if good.any() else np.nan, np.float64),
        valid=good.mean(axis=(1, 2)),
        overlap=overlap(geometry, valid),
        change=change(footage.frames),
        names=np.array(found.names, np.str_),
        agent=agent,
        score=found.scores,
        centres=centres,
        points=points,
        boxes=boxes_of(masks.masks) * np.tile(np.array(footage.size) / (width, height), 2),
        area=masks.masks.mean(axis=(2, 3)),
        present=masks.present,
        forward=turned.forward,
        up_axis=turned.up,
        sure=turned.confidence,
    )


def follow(footage: Footage, estimators: Estimators, names: Names, settings: Settings) -> tuple[Boxes, Masks]:
    """Things of all `detect_frames`, each once, and their masks; the surest first within a frame."""
    frames = [frame for frame in settings.detect_frames if frame < len(footage.frames)]
    shape = footage.frames.shape[:3]
    masks, present = np.zeros((0, *shape), bool), np.zeros((0, shape[0]))
    kept: list[Boxes] = []
    for frame, found in zip(frames, estimators.detector(footage, frames, names), strict=True):
        known = boxes_of(masks[:, frame : frame + 1])[:, 0]
        new = [n for n in chosen(found, settings) if not (iou(found.boxes[n], known) > settings.same_box).any()]
        new = new[: settings.most_objects - len(masks)]
        if not new:
            continue
        kept.append(found[new])
        followed = estimators.tracker(footage, frame, kept[-1].boxes)
        masks = np.concatenate([masks, followed.masks])
        present = np.concatenate([present, followed.present])
    boxes = np.concatenate([np.zeros((0, 4)), *(found.boxes for found in kept)])
    scores = np.concatenate([np.zeros(0), *(found.scores for found in kept)])
    return Boxes(boxes, scores, tuple(name for found in kept for name in found.names)), Masks(masks, present)


def chosen(found: Boxes, settings: Settings) -> list[int]:
    """Those above the threshold, without those that a surer one overlaps too much; the surest first."""
    kept: list[int] = []
    for number in np.argsort(-found.scores, kind="stable").tolist():
        if found.scores[number] < settings.box_threshold:
            break
        if not (iou(found.boxes[number], found.boxes[kept]) > settings.nms).any():
            kept.append(number)
    return kept


def iou(box: FloatArray, others: FloatArray) -> FloatArray:
    """[4] and [N, 4] -> [N]; 0 beside a box that is NaN."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    both = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - inside
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(inside / both)


def boxes_of(masks: BoolArray) -> FloatArray:
    """[N, F, H, W] -> [N, F, 4] left, top, right, bottom, the last two exclusive; NaN where a mask is empty."""
    sides = []
    for axis in (2, 3):
        line = np.asarray(masks.any(axis=axis))
        sides.append((line.argmax(axis=-1), line.shape[-1] - line[..., ::-1].argmax(axis=-1)))
    (left, right), (top, bottom) = sides
    boxes = np.stack([left, top, right, bottom], axis=-1).astype(np.float64)
    boxes[~masks.any(axis=(2, 3))] = np.nan
    return boxes


def overlap(geometry: Geometry, valid: BoolArray) -> FloatArray:
    """[F - 1] share of a frame's valid points that fall into the next frame. π³ gives no focal length: it is fitted."""
    height, width = valid.shape[1:]
    rows, columns = np.indices((height, width)) + 0.5
    middle = np.array([width, height]) / 2
    shares = np.zeros(len(valid) - 1)
    for frame in range(len(shares)):
        here, there = (geometry.points[n][valid[n]].astype(np.float64) for n in (frame, frame + 1))
        if not len(here) or not len(there):
            continue
        pixels = np.stack([columns[valid[frame + 1]], rows[valid[frame + 1]]], axis=1) - middle
        slopes = there[:, :2] / np.maximum(there[:, 2:], 1e-9)
        focal = float((pixels * slopes).sum() / max(float((slopes**2).sum()), 1e-9))
        one, two = geometry.poses[frame], geometry.poses[frame + 1]
        moved = (here @ one[:3, :3].T + one[:3, 3] - two[:3, 3]) @ two[:3, :3]
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = np.abs(focal * moved[:, :2] / moved[:, 2:]) <= middle
        shares[frame] = (seen.all(axis=1) & (moved[:, 2] > 0)).mean()
    return shares


def change(frames: NDArray[np.uint8]) -> FloatArray:
    """[F - 1] total variation between the joint colour histograms of neighbours: 0 alike, 1 nothing in common."""
    cells = frames // (256 // BINS)
    index = (cells[..., 0].astype(np.int64) * BINS + cells[..., 1]) * BINS + cells[..., 2]
    counts = np.stack([np.bincount(one.ravel(), minlength=BINS**3) for one in index]) / index[0].size
    return np.abs(np.diff(counts, axis=0)).sum(axis=1) / 2


def _centres(
    geometry: Geometry, masks: BoolArray, good: BoolArray, valid: BoolArray, settings: Settings
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Means of valid points; of too few, the middle one of all good points; NaN where there is none."""
    centres = np.full((*masks.shape[:2], 3), np.nan)
    counts = (masks & valid).sum(axis=(2, 3))
    for thing, frame in zip(*np.nonzero(masks.any(axis=(2, 3))), strict=True):
        points, mask = geometry.points[frame], masks[thing, frame]
        if counts[thing, frame] >= settings.least_points:
            centres[thing, frame] = points[mask & valid[frame]].astype(np.float64).mean(axis=0)
        elif (mask & good[frame]).any():
            centres[thing, frame] = np.median(points[mask & good[frame]].astype(np.float64), axis=0)
    return centres, counts


def _orientations(
    footage: Footage, estimators: Estimators, masks: BoolArray, centres: FloatArray, agent: BoolArray
) -> Orientations:
    """Only agents are asked about; of the others nothing is known."""
    count, frames = masks.shape[:2]
    unknown = np.full((count, frames, 3), np.nan)
    found = Orientations(unknown, unknown.copy(), np.zeros((count, frames)))
    if agent.any():
        rays = centres[agent] / np.linalg.norm(centres[agent], axis=2, keepdims=True)
        told = estimators.orienter(footage, masks[agent], rays)
        found.forward[agent], found.up[agent], found.confidence[agent] = told.forward, told.up, told.confidence
    return found
