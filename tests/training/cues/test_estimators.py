"""The real architectures at tiny sizes: what goes in and comes out, in which axes, and weights read strictly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import CheckpointError
from models.pi3 import Pi3
from training.cues.detection import GroundingDino
from training.cues.estimators import Boxes, Estimators, Footage, Names
from training.cues.geometry import Pi3Geometer
from training.cues.masks import Sam2Tracker
from training.cues.measure import chosen, iou, measure
from training.cues.orientation import OrientAnything, OrientAnythingOrienter, along, axes_of, crop, read
from training.cues.settings import Settings
from training.cues.untrained import grounding_dino, orient_anything, sam2, tokenizer, untrained
from training.questions.cues import FloatArray

SETTINGS = Settings(max_pixels=84 * 56, frames=6, detect_frames=(0, 3))
NAMES = Names(("dog", "motorcycle"), ("ball",))


@pytest.fixture(scope="module")
def footage() -> Footage:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (6, 56, 84, 3), dtype=np.uint8)
    return Footage(Path("clip.mp4"), frames, np.linspace(0, 1.25, 6), (840, 560))


@pytest.fixture(scope="module")
def estimators() -> Estimators:
    return untrained()


def test_pi3_gives_poses_and_points_of_every_frame(footage: Footage, estimators: Estimators) -> None:
    found = estimators.geometer(footage)
    assert found.points.shape == (6, 56, 84, 3)
    assert (found.points[..., 2] > 0).all()
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1
    turns = found.poses[:, :3, :3]
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (6, 1, 1)), atol=1e-5)
    assert not found.metric
    assert found.up is None


def test_pi3_is_loaded_with_its_hashes(tmp_path: Path, footage: Footage, estimators: Estimators) -> None:
    assert isinstance(estimators.geometer, Pi3Geometer)
    model: Pi3 = estimators.geometer.model
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_json()))
    loaded = Pi3Geometer.load(tmp_path, "cpu", torch.float32)
    np.testing.assert_allclose(loaded(footage).points, estimators.geometer(footage).points, rtol=1e-5)
    assert len(loaded.facts["sha256"]["model.safetensors"]) == 64


def test_boxes_are_in_pixels_of_the_frames_and_named(footage: Footage, estimators: Estimators) -> None:
    first, second = estimators.detector(footage, (0, 3), NAMES)
    for found in (first, second):
        assert len(found) == 20  # queries of the tiny model: thresholds come later
        assert set(found.names) <= set(NAMES.all)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [84, 56, 84, 56]).all()
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
    assert not np.array_equal(first.boxes, second.boxes) or not np.array_equal(first.scores, second.scores)


def test_a_name_has_the_score_of_its_own_tokens(footage: Footage) -> None:
    """With logits that are set by hand: the name of a box is that of the token which fits best."""
    model = grounding_dino().eval()
    detector = GroundingDino(model, tokenizer(), {}, shortest=64, longest=128)
    ids = detector.tokenizer("dog. motorcycle. ball.")["input_ids"]
    places = {name: ids.index(detector.tokenizer(name)["input_ids"][1]) for name in NAMES.all}

    class Fixed:
        config, device = model.config, torch.device("cpu")

        def __call__(self, **inputs: Any) -> Any:
            logits = torch.full((1, 3, 256), -torch.inf)
            for query, (name, logit) in enumerate((("ball", 2.0), ("dog", 0.0), ("motorcycle", -2.0))):
                logits[0, query, places[name]] = logit
            return type("Out", (), {"logits": logits, "pred_boxes": torch.tensor([[[0.5, 0.5, 0.5, 1.0]] * 3])})

    fixed = GroundingDino(Fixed(), detector.tokenizer, {}, shortest=64, longest=128)
    (found,) = fixed(footage, (0,), NAMES)
    assert found.names == ("ball", "dog", "motorcycle")
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-2.0, 0.0, 2.0])), rtol=1e-6)
    np.testing.assert_allclose(found.boxes[0], [21, 0, 63, 56])


def test_more_names_than_a_text_holds_are_asked_in_parts(footage: Footage) -> None:
    model = grounding_dino().eval()
    model.config.max_text_len = 8
    detector = GroundingDino(model, tokenizer(), {}, shortest=64, longest=128)
    assert list(detector._texts(("dog", "cat", "ball", "kite"))) == [("dog", "cat", "ball"), ("kite",)]
    (found,) = detector(footage, (0,), Names(("dog", "cat"), ("ball", "kite")))
    assert len(found) == 40


def test_masks_follow_boxes_forwards_and_backwards(footage: Footage, estimators: Estimators) -> None:
    found = estimators.tracker(footage, 3, np.array([[4.0, 4, 40, 50], [30, 10, 80, 50]]))
    assert found.masks.shape == (2, 6, 56, 84)
    assert found.masks.dtype == bool
    assert ((found.present > 0) & (found.present < 1)).all()  # every frame was looked at


def test_fronts_are_unit_vectors_where_something_is_seen(footage: Footage, estimators: Estimators) -> None:
    masks = np.zeros((2, 6, 56, 84), bool)
    masks[0, :4, 10:30, 10:40] = True
    masks[1, 2:, 40:, 60:] = True
    rays = np.tile([0.0, 0.0, 1.0], (2, 6, 1))
    found = estimators.orienter(footage, masks, rays)
    known = masks.any(axis=(2, 3))
    assert np.array_equal(np.isfinite(found.forward).all(axis=2), known)
    for axis in (found.forward, found.up):
        np.testing.assert_allclose(np.linalg.norm(axis[known], axis=1), 1, atol=1e-9)
    np.testing.assert_allclose((found.forward * found.up)[known].sum(axis=1), 0, atol=1e-9)
    assert (found.confidence[~known] == 0).all()
    assert (found.confidence[known] > 0).all()


FACING = {  # azimuth, polar, rotation -> front in a camera's axes (right, down, ahead)
    (0, 0, 0): (0, 0, -1),  # faces the camera
    (90, 0, 0): (-1, 0, 0),  # faces left in the picture
    (180, 0, 0): (0, 0, 1),
    (270, 0, 0): (1, 0, 0),
    (0, 90, 0): (0, 1, 0),  # seen from above, its front points down in the picture
    (90, 0, 90): (0, 1, 0),  # left, turned a quarter counterclockwise: down
}


@pytest.mark.parametrize(("angles", "front"), FACING.items())
def test_angles_mean_what_the_release_draws(angles: tuple[float, ...], front: tuple[float, ...]) -> None:
    np.testing.assert_allclose(axes_of(np.array([angles], float))[0, :, 0], front, atol=1e-12)


def test_up_is_up_in_the_picture_and_leans_to_a_camera_above() -> None:
    upright, above = axes_of(np.array([[30.0, 0, 0], [30.0, 40, 0]]))[..., 1]
    np.testing.assert_allclose(upright, [0, -1, 0], atol=1e-12)
    assert above[1] < 0
    assert above[2] < 0  # towards the camera


def test_angles_are_seen_along_the_ray() -> None:
    """What faces a camera faces it, wherever it stands in the picture."""
    rays = np.random.default_rng(0).normal(size=(20, 3)) * [1, 1, 0.2] + [0, 0, 1.5]
    rays[:, 2] = np.abs(rays[:, 2])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    turns = along(rays)
    np.testing.assert_allclose(turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (20, 1, 1)), atol=1e-9)
    fronts = (turns @ axes_of(np.zeros((20, 3))))[..., 0]
    np.testing.assert_allclose(fronts, -rays, atol=1e-9)


def test_bins_are_degrees() -> None:
    out = torch.zeros(1, 722)
    out[0, 123], out[0, 360 + 90 - 20], out[0, 540 + 90 + 7], out[0, 720] = 9, 9, 9, 2
    angles, sure = read(out)
    assert angles.tolist() == [[123, -20, 7]]
    assert sure[0] == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_a_crop_is_square_and_black_outside_the_frame() -> None:
    frame = np.full((40, 60, 3), 255, np.uint8)
    image = crop(frame, np.array([50.0, 10, 60, 30]))  # its square reaches beyond the right side
    assert image.shape == (3, 224, 224)
    assert image[0, 112, 60] > 2  # white
    assert image[0, 112, 220] < -2  # black


def published(model: OrientAnything) -> dict[str, torch.Tensor]:
    """The state dict as the release's code names it."""
    names = {f"{name[0]}_proj": f"attention.{name}" for name in ("query", "key", "value")} | {"o_proj": "output.dense"}
    out = {}
    for key, value in model.state_dict().items():
        for new, old in names.items():
            key = key.replace(f".attention.{new}.", f".attention.{old}.")
        out[key] = value
    return out


def test_orient_anything_reads_the_published_layout_strictly() -> None:
    model, other = orient_anything().eval(), orient_anything().eval()
    tensors = published(model)
    assert "dinov2.encoder.layer.0.attention.attention.query.weight" in tensors
    assert "down_sampler.net1.1.running_mean" in tensors
    other.fill(tensors, "a file")
    crops = torch.randn(2, 3, 224, 224)
    torch.testing.assert_close(other(crops), model(crops))
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors: down_sampler\.net2\.0\.bias"):
        other.fill({key: value for key, value in tensors.items() if key != "down_sampler.net2.0.bias"}, "a file")
    with pytest.raises(CheckpointError, match="has unexpected 1 tensors: more"):
        other.fill(tensors | {"more": torch.zeros(1)}, "a file")
    with pytest.raises(CheckpointError, match=r"net2\.0\.bias of shape \(3,\), expected \(722,\)"):
        other.fill(tensors | {"down_sampler.net2.0.bias": torch.zeros(3)}, "a file")


def test_orient_anything_says_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no dino_weight\.pt"):
        OrientAnythingOrienter.load(tmp_path, "cpu")


def test_published_sizes_of_orient_anything() -> None:
    model = OrientAnything.published()
    head = (1024 + 1) * 722 + (722 + 1) * 722 + 4 * 722
    assert sum(p.numel() for p in model.down_sampler.parameters()) == head
    assert sum(p.numel() for p in model.dinov2.parameters()) == 304_368_640  # DINOv2-large


@pytest.mark.parametrize("what", ["detector", "masks"])
def test_weights_of_transformers_are_read_strictly(tmp_path: Path, footage: Footage, what: str) -> None:
    model = grounding_dino() if what == "detector" else sam2()
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    load = GroundingDino.load if what == "detector" else Sam2Tracker.load
    assert len(load(tmp_path, "cpu").facts["sha256"]["model.safetensors"]) == 64
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(key for key in sorted(tensors) if key.endswith("fc1.weight") or "memory_encoder" in key)
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        load(tmp_path, "cpu")


def test_the_whole_pipeline_runs_on_the_real_architectures(footage: Footage, estimators: Estimators) -> None:
    measured = measure(footage, estimators, SETTINGS)
    count = len(measured.names)
    assert 0 < count <= SETTINGS.most_objects
    for name, array in measured.arrays().items():
        if name in ("centres", "points", "boxes", "area", "present", "forward", "up_axis", "sure"):
            assert array.shape[:2] == (count, 6), name


def test_overlapping_boxes_are_thinned_and_weak_ones_left_out() -> None:
    boxes: FloatArray = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 30, 10], [0, 0, 5, 10.0]])
    np.testing.assert_allclose(iou(boxes[0], boxes), [1, 0.9, 0, 0.5])
    found = Boxes(boxes, np.array([0.5, 0.9, 0.3, 0.4]), ("dog",) * 4)
    assert chosen(found, Settings()) == [1, 3]
