"""What a patch of a frame shows, taught densely: which object, where its middle is, which way it faces, how far all is.

Features that say this linearly are what questions about motion need; learning it from answers alone takes far longer.

Legend: N frames, O objects of a scene (padded), P patches of a frame, H, W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from training.loop.task import Metrics, Number

PATCH = 14
LEAST_SHARE = 0.08  # of a patch's pixels: what an object must cover to be what the patch shows
NOTHING = -100  # cross entropy leaves it out
FAR = 60.0  # metres: depth beyond is as good as the sky


@dataclass(frozen=True)
class Objects:
    """Frames and the objects in them. `masks` uint8 [N, H, W]: 0 or 1 + the object's index. `kinds`, `colours` [N, O].

    `centres` and `forward` float [N, O, 3] in the camera's axes, metres; `forward` is zero for what has no front.
    `depth` [N, H, W] metres, infinite in the sky. `light` [N, 3]: a unit vector towards the sun, in the camera's axes:
    the only compass that a single picture has.
    """

    masks: Tensor
    depth: Tensor
    kinds: Tensor
    colours: Tensor
    centres: Tensor
    forward: Tensor
    light: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Objects]) -> Objects:
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))

    def to(self, device: torch.device) -> Objects:
        return Objects(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class PatchLabels:
    """`shown` bool [N, P]: the patch shows an object; `kind`, `colour` [N, P] with the last class for the backdrop.

    `centre` [N, P, 3]: (x/z, y/z, log z) of the object's middle; `forward` [N, P, 3], `faces` bool [N, P]: it has one;
    `depth` [N, P]: mean log depth of what is not sky; `light` [N, P, 3], the same for all patches.
    """

    shown: Tensor
    kind: Tensor
    colour: Tensor
    centre: Tensor
    forward: Tensor
    faces: Tensor
    depth: Tensor
    light: Tensor


class PatchProbe(nn.Module):
    """One linear layer that reads all of `PatchLabels` off the features [..., P, C]; dropped after the training."""

    def __init__(self, width: int, kinds: int, colours: int) -> None:
        super().__init__()
        self.sizes = [kinds + 1, colours + 1, 3, 3, 1, 3]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return torch.split(self.linear(features).float(), self.sizes, dim=-1)


def labels(objects: Objects, kinds: int, colours: int, patch: int = PATCH) -> PatchLabels:
    """Each patch shows the object that covers most of it, if that is at least `LEAST_SHARE`."""
    count = objects.kinds.shape[1]
    tiles = rearrange(objects.masks, "n (h p) (w q) -> n (h w) (p q)", p=patch, q=patch)
    covered = torch.stack([(tiles == index + 1).float().mean(-1) for index in range(count)], dim=-1)  # [N, P, O]
    share, winner = covered.max(dim=-1)
    shown = share >= LEAST_SHARE

    def of_winner(values: Tensor) -> Tensor:
        index = winner[..., None].expand(-1, -1, values.shape[-1])
        return torch.gather(values, 1, index)

    centre = of_winner(objects.centres)
    depth = centre[..., 2:].clamp(min=0.3)
    forward = of_winner(objects.forward)
    far = rearrange(objects.depth, "n (h p) (w q) -> n (h w) (p q)", p=patch, q=patch).float()
    return PatchLabels(
        shown=shown,
        kind=torch.where(shown, torch.gather(objects.kinds, 1, winner), kinds),
        colour=torch.where(shown, torch.gather(objects.colours, 1, winner), colours),
        centre=torch.cat([centre[..., :2] / depth, depth.log()], dim=-1),
        forward=forward,
        faces=shown & (forward.norm(dim=-1) > 0.5),
        depth=reduce(far.clamp(0.3, FAR).log(), "n p s -> n p", "mean"),
        light=repeat(objects.light, "n a -> n p a", p=far.shape[1]),
    )


def lesson(probe: PatchProbe, features: Tensor, truth: PatchLabels) -> tuple[Tensor, Metrics]:
    """The mean loss over the patches of all frames, features [N, P, C], and what to log: name -> (sum, count)."""
    kind, colour, centre, forward, depth, light = probe(features)
    # Most patches show no object: they count a little less, or nothing else would be learned at first.
    weight = torch.where(truth.shown, 1.0, 0.3)
    named = _mean(_entropy(kind, truth.kind) + _entropy(colour, truth.colour), weight)
    placed = _mean(F.smooth_l1_loss(centre, truth.centre, reduction="none", beta=0.05).sum(-1), truth.shown.float())
    faced = _mean((forward - truth.forward).square().sum(-1), truth.faces.float())
    far = F.smooth_l1_loss(depth.squeeze(-1), truth.depth, beta=0.1)
    lit = (light - truth.light).square().sum(-1).mean()
    centre, forward, depth, light = centre.detach(), forward.detach(), depth.detach(), light.detach()
    right, seen = (kind.argmax(-1) == truth.kind) & (colour.argmax(-1) == truth.colour), truth.shown.sum()
    metrics: dict[str, tuple[Number, Number]] = {
        "object": ((right & truth.shown).sum(), seen),
        "centre_m": ((_metres(centre, truth.centre) * truth.shown).sum(), seen),
        "facing_cos": ((_cosine(forward, truth.forward) * truth.faces).sum(), truth.faces.sum()),
        "depth_log": ((depth.squeeze(-1) - truth.depth).abs().sum(), truth.depth.numel()),
        "light_cos": (_cosine(light, truth.light).sum(), truth.depth.numel()),
    }
    return named + 2.0 * placed + faced + far + lit, metrics


def _cosine(guess: Tensor, truth: Tensor) -> Tensor:
    return F.cosine_similarity(guess, truth, dim=-1)


def _metres(guess: Tensor, truth: Tensor) -> Tensor:
    """[...] how far two middles, each (x/z, y/z, log z), are apart."""
    return (_unprojected(guess) - _unprojected(truth)).norm(dim=-1)


def _unprojected(place: Tensor) -> Tensor:
    z = place[..., 2:].clamp(max=4.0).exp()
    return torch.cat([place[..., :2] * z, z], dim=-1)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), truth.flatten(), reduction="none").view(truth.shape)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
