"""What objects are made of: convex solids, each with at most two colours.

An object's own axes are x forward, y left, z up, in metres. Colours are linear light in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import partial

Triple = tuple[float, float, float]


class Shape(IntEnum):
    SPHERE = 0
    BOX = 1
    FRUSTUM = 2


@dataclass(frozen=True)
class Part:
    """A solid that fills the box `centre` ± `half`, scaled from a unit sphere, a cube, or a cone or cylinder.

    `axis` of a frustum, 0 to 2 for x to z: its radius shrinks along it to `taper` times that at the low end.
    `other` is the colour of the points p (in units of `half`) with `plane` · p > `offset`; with `bands` above 0, of
    the crests of sin(bands * (`plane` · p) + `offset`). `shadow`: whether it is worth a shadow of its own.
    """

    shape: Shape
    centre: Triple
    half: Triple
    colour: Triple
    other: Triple = (0, 0, 0)
    plane: Triple = (0, 0, 0)
    offset: float = 2.0
    bands: float = 0.0
    axis: int = 2
    taper: float = 1.0
    shadow: bool = True


ball = partial(Part, Shape.SPHERE)
box = partial(Part, Shape.BOX)
frustum = partial(Part, Shape.FRUSTUM)
small_box = partial(Part, Shape.BOX, shadow=False)
small_ball = partial(Part, Shape.SPHERE, shadow=False)
