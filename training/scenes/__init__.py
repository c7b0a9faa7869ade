"""Rendered scenes with exact 4D ground truth: a seed in; frames, depth, masks, camera and cues out.

    scene = sample_scene(Seeds.train(0))
    rendered = render(scene)
    cues = cues_of(scene, rendered)

The way of a scene: `sampling` draws it (`motion`, `cameras`, `looks`, `catalogue`); `batch` makes tables of it;
`casting` finds what every pixel sees (`solids`); `backdrop` and `shading` give it colours; `drawing` joins the two.
"""

from training.scenes.config import SceneConfig, Seeds
from training.scenes.rendering import Points, Rendered, points, render, render_many
from training.scenes.sampling import sample_scene
from training.scenes.scene import Body, Look, Scene, project
from training.scenes.tracks import cues_of

__all__ = [
    "Body",
    "Look",
    "Points",
    "Rendered",
    "Scene",
    "SceneConfig",
    "Seeds",
    "cues_of",
    "points",
    "project",
    "render",
    "render_many",
    "sample_scene",
]
