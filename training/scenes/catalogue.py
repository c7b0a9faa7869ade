"""The kinds of objects and their colours. What has a front shows it: a face, a beak, lamps on a dark grille.

Here the foot of an object is z = 0, below its middle; `Kind.parts` moves the origin to the middle of its height, which
is where an object is when a question asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from training.scenes.parts import Part, Triple, ball, box, frustum, small_ball, small_box

# Far apart from each other at any light level, and more vivid than any ground.
COLOURS: dict[str, Triple] = {
    "red": (0.72, 0.02, 0.02),
    "orange": (0.95, 0.26, 0.01),
    "yellow": (0.95, 0.76, 0.03),
    "green": (0.02, 0.36, 0.05),
    "blue": (0.02, 0.09, 0.80),
    "purple": (0.24, 0.03, 0.46),
    "pink": (0.98, 0.30, 0.52),
    "white": (0.90, 0.90, 0.88),
    "black": (0.015, 0.015, 0.017),
}
CREAM, DARK, GREY = (0.86, 0.78, 0.60), (0.025, 0.025, 0.03), (0.36, 0.37, 0.38)
GLASS, TYRE, LAMP, TAIL_LAMP = (0.04, 0.06, 0.10), (0.03, 0.03, 0.03), (1.9, 1.7, 1.0), (0.45, 0.0, 0.0)
SKIN, HAIR, BEAK, SCREEN = (0.80, 0.46, 0.30), (0.06, 0.03, 0.02), (1.0, 0.36, 0.02), (0.05, 0.75, 0.85)
AHEAD: Triple = (1, 0, 0)


@dataclass(frozen=True)
class Kind:
    """`habit`: how it moves, see `motion`. Metres: `height`, and `radius` of a circle around it, seen from above."""

    name: str
    habit: str
    height: float
    radius: float
    build: Callable[[Triple], tuple[Part, ...]]

    @property
    def is_agent(self) -> bool:
        return self.habit in ("vehicle", "walker", "bird")

    def parts(self, colour: Triple, scale: float) -> tuple[Part, ...]:
        """In the axes of an object whose origin is the middle of its height."""
        parts = self.build(colour)
        middle = self.height / 2
        return tuple(
            replace(part, centre=_scaled(part.centre, scale, middle), half=_scaled(part.half, scale)) for part in parts
        )


def _scaled(values: Triple, scale: float, lower: float = 0.0) -> Triple:
    x, y, z = values
    return x * scale, y * scale, (z - lower) * scale


def _contrast(colour: Triple) -> Triple:
    """A face that stands out from a body of this colour."""
    red, green, blue = colour
    return DARK if 0.3 * red + 0.6 * green + 0.1 * blue > 0.55 else CREAM


def _dimmed(colour: Triple) -> Triple:
    red, green, blue = colour
    return 0.55 * red, 0.55 * green, 0.55 * blue


def _wheels(x: float, y: float, radius: float) -> tuple[Part, ...]:
    half = (radius, 0.13, radius)
    return tuple(frustum((dx, dy, radius), half, TYRE, axis=1, shadow=False) for dx in (-x, x) for dy in (-y, y))


def _car(colour: Triple) -> tuple[Part, ...]:
    return (
        box((0, 0, 0.50), (1.40, 0.68, 0.28), colour, DARK, AHEAD, 0.97),
        box((-0.30, 0, 0.98), (0.72, 0.58, 0.22), colour, GLASS, AHEAD, 0.75),
        small_box((1.42, 0.45, 0.56), (0.03, 0.19, 0.13), LAMP),
        small_box((1.42, -0.45, 0.56), (0.03, 0.19, 0.13), LAMP),
        small_box((-1.40, 0, 0.60), (0.03, 0.62, 0.08), TAIL_LAMP),
        *_wheels(0.85, 0.62, 0.28),
    )


def _truck(colour: Triple) -> tuple[Part, ...]:
    cab = _dimmed(colour)
    return (
        box((-0.45, 0, 1.08), (1.15, 0.74, 0.72), colour),
        box((1.15, 0, 0.80), (0.45, 0.70, 0.50), cab, DARK, AHEAD, 0.97),
        small_box((1.60, 0, 1.02), (0.03, 0.60, 0.20), GLASS),
        small_box((1.62, 0.42, 0.55), (0.03, 0.20, 0.14), LAMP),
        small_box((1.62, -0.42, 0.55), (0.03, 0.20, 0.14), LAMP),
        *_wheels(1.05, 0.64, 0.32),
    )


def _person(colour: Triple) -> tuple[Part, ...]:
    return (
        frustum((0, 0.17, 0.40), (0.14, 0.14, 0.40), (0.05, 0.06, 0.12)),
        frustum((0, -0.17, 0.40), (0.14, 0.14, 0.40), (0.05, 0.06, 0.12)),
        small_box((0.14, 0, 0.06), (0.26, 0.30, 0.06), DARK),
        frustum((0, 0, 1.12), (0.26, 0.36, 0.36), colour, _contrast(colour), AHEAD, 0.72, taper=0.85),
        small_ball((0.14, 0.43, 1.08), (0.13, 0.11, 0.34), colour),
        small_ball((0.14, -0.43, 1.08), (0.13, 0.11, 0.34), colour),
        ball((0, 0, 1.70), (0.26, 0.24, 0.27), HAIR, SKIN, (1, 0, -0.35), 0.15),
    )


def _robot(colour: Triple) -> tuple[Part, ...]:
    return (
        box((0, 0, 0.16), (0.42, 0.42, 0.16), DARK),
        box((0, 0, 0.80), (0.34, 0.46, 0.46), colour),
        small_box((0.34, 0, 0.82), (0.03, 0.26, 0.22), _contrast(colour)),
        box((0, 0, 1.48), (0.28, 0.34, 0.22), colour, SCREEN, AHEAD, 0.9),
        small_box((0.34, 0.54, 0.90), (0.38, 0.09, 0.10), GREY),
        small_box((0.34, -0.54, 0.90), (0.38, 0.09, 0.10), GREY),
        frustum((-0.1, 0, 1.85), (0.05, 0.05, 0.18), DARK, shadow=False),
    )


def _dog(colour: Triple) -> tuple[Part, ...]:
    face = _contrast(colour)
    return (
        ball((-0.10, 0, 0.66), (0.72, 0.30, 0.30), colour, face, AHEAD, 0.82),
        box((0.32, 0, 0.24), (0.10, 0.24, 0.24), colour),
        box((-0.52, 0, 0.24), (0.10, 0.24, 0.24), colour),
        ball((0.62, 0, 1.00), (0.29, 0.27, 0.29), colour, face, AHEAD, 0.30),
        ball((0.92, 0, 0.92), (0.22, 0.14, 0.13), face, BEAK, AHEAD, 0.55),
        small_box((0.48, 0, 1.26), (0.06, 0.26, 0.12), DARK),
        small_box((-0.84, 0, 0.98), (0.06, 0.06, 0.28), colour),
    )


def _bird(colour: Triple) -> tuple[Part, ...]:
    wing = _dimmed(colour)
    return (
        ball((0, 0, 0.26), (0.58, 0.27, 0.25), colour),
        box((0.02, 0, 0.34), (0.27, 1.00, 0.035), colour, wing, (0, 1, 0), 0.0),
        ball((0.56, 0, 0.44), (0.24, 0.22, 0.22), _contrast(colour)),
        frustum((0.92, 0, 0.42), (0.22, 0.11, 0.11), BEAK, axis=0, taper=0.0, shadow=False),
        box((-0.72, 0, 0.28), (0.24, 0.22, 0.03), wing),
    )


def _ball(colour: Triple) -> tuple[Part, ...]:
    return (ball((0, 0, 0.55), (0.55, 0.55, 0.55), colour, _contrast(colour), (0.55, 0.25, 0.8), 0.0, 7.0),)


def _box(colour: Triple) -> tuple[Part, ...]:
    return (
        box((0, 0, 0.55), (0.60, 0.60, 0.55), colour),
        small_box((0, 0, 0.55), (0.61, 0.61, 0.10), _contrast(colour)),
    )


def _cylinder(colour: Triple) -> tuple[Part, ...]:
    return (frustum((0, 0, 0.70), (0.46, 0.46, 0.70), colour, _contrast(colour), (0, 0, 1), 0.9, 7.0),)


def _cone(colour: Triple) -> tuple[Part, ...]:
    return (
        frustum((0, 0, 0.72), (0.58, 0.58, 0.68), colour, _contrast(colour), (0, 0, 1), 2.2, 5.5, taper=0.06),
        box((0, 0, 0.03), (0.66, 0.66, 0.03), colour),
    )


def _balloon(colour: Triple) -> tuple[Part, ...]:
    return (
        ball((0, 0, 0.74), (0.50, 0.50, 0.60), colour),
        frustum((0, 0, 0.09), (0.13, 0.13, 0.09), colour, taper=0.3, shadow=False),
    )


KINDS = (
    Kind("car", "vehicle", 1.20, 1.55, _car),
    Kind("truck", "vehicle", 1.80, 1.80, _truck),
    Kind("person", "walker", 1.97, 0.60, _person),
    Kind("dog", "walker", 1.38, 1.10, _dog),
    Kind("robot", "walker", 2.03, 0.85, _robot),
    Kind("bird", "bird", 0.66, 1.15, _bird),
    Kind("ball", "ball", 1.10, 0.55, _ball),
    Kind("box", "thing", 1.10, 0.86, _box),
    Kind("cylinder", "thing", 1.40, 0.46, _cylinder),
    Kind("cone", "thing", 1.40, 0.93, _cone),
    Kind("balloon", "balloon", 1.34, 0.50, _balloon),
)
