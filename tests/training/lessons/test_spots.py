"""Where the selector's heads are taught to look."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.questions.motions import scenes
from training.lessons.samples import SAMPLES
from training.lessons.spots import FRAMES_PER_TIME, REACH, spots
from training.questions.templates import Ask
from training.questions.viewpoints import bodies

CUES = scenes(1)[0]
AROUND = bodies(CUES)
AGENT = next(number for number, body in enumerate(AROUND) if body.kind == "agent")


@pytest.mark.parametrize("kind", ["spd", "dir_pred"])
def test_a_step_is_looked_at_from_some_frames_before_and_after_it(kind: str) -> None:
    found = spots(CUES, AROUND, Ask(kind, 0, (1,), 3, 20))
    span = 1 + 2 * REACH
    before = np.clip(np.floor(np.linspace(3, 19, SAMPLES)).astype(int) - REACH, 3, 20 - span)
    assert found.times[0].tolist() == (before // FRAMES_PER_TIME).tolist()
    assert found.times[1].tolist() == ((before + span) // FRAMES_PER_TIME).tolist()


def test_in_a_short_interval_all_of_it_is_the_step() -> None:
    found = spots(CUES, AROUND, Ask("spd", 0, (1,), 4, 8))
    assert set(found.times[0].tolist()) == {4 // FRAMES_PER_TIME}
    assert set(found.times[1].tolist()) == {8 // FRAMES_PER_TIME}


def test_two_speeds_have_a_head_each() -> None:
    found = spots(CUES, AROUND, Ask("spd_comp", 0, (1, 2), 3, 20))
    assert found.times[0].tolist() == found.times[1].tolist()
    assert found.who[0].tolist() != found.who[1].tolist()


@pytest.mark.parametrize("kind", ["ori", "dir"])
def test_from_where_the_camera_stood_all_of_that_moment_is_looked_at(kind: str) -> None:
    targets = (1,) if kind == "ori" else (1, 2)
    found = spots(CUES, AROUND, Ask(kind, 0, targets, 3, 20, at=7))
    assert (found.times[2] == 7 // FRAMES_PER_TIME).all()
    assert found.cells[2].all()
    moving = spots(CUES, AROUND, Ask(kind, 0, targets, 3, 20))
    assert not moving.cells[2].all()


@pytest.mark.parametrize("kind", ["ori", "dir_pred"])
def test_of_an_agent_that_is_seen_from_where_it_stood_both_are_looked_at(kind: str) -> None:
    found = spots(CUES, AROUND, Ask(kind, AGENT, (AGENT,), 3, 20, at=11))
    assert (found.times[0] == 11 // FRAMES_PER_TIME).all()
    plain = spots(CUES, AROUND, Ask(kind, 0, (AGENT,), 3, 20))
    assert found.times[1:].tolist() == plain.times[1:].tolist()
    assert found.cells[1:].tolist() == plain.cells[1:].tolist()


def test_an_agents_own_speed_is_compared_by_its_steps() -> None:
    other = next(number for number in range(1, len(AROUND)) if number != AGENT)
    found = spots(CUES, AROUND, Ask("spd_comp", AGENT, (other, AGENT), 3, 20, at=11))
    plain = spots(CUES, AROUND, Ask("spd_comp", 0, (AGENT, other), 3, 20))
    assert found.times.tolist() == plain.times.tolist()


def test_an_agent_that_looks_from_where_it_stood_is_looked_at_then() -> None:
    target = next(number for number in range(1, len(AROUND)) if number != AGENT)
    found = spots(CUES, AROUND, Ask("dis", AGENT, (target, 0), 3, 20, at=11))
    assert 11 // FRAMES_PER_TIME in {int(found.times[head, 0]) for head in range(3) if len(set(found.times[head])) == 1}
