from __future__ import annotations

from dataclasses import replace

import pytest

from models.errors import InputError
from models.prompt import Prompt, SpecialTokens
from serve.engine.requests import Choice, Limits, Request, Text, check
from tests.serve.engine.asked import never

LIMITS = Limits(memory_bytes=1, max_tokens=100)
PROMPT = Prompt((1, 2), (3, 4), SpecialTokens())
REQUEST = Request("clip", PROMPT, Text(1), never())


@pytest.mark.parametrize(
    "task",
    [Choice((0, 639)), Text(100, 2.0, 1.0, ("a",) * 16, -(2**63), 20), Text(1, 0.0, 1e-9, (), 2**63 - 1, 0)],
)
def test_the_ends_of_the_limits_are_allowed(task: Choice | Text) -> None:
    check(replace(REQUEST, task=task), LIMITS, 640)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (Text(0), "max_tokens"),
        (Text(101), "max_tokens"),
        (Text(1, temperature=-0.1), "temperature"),
        (Text(1, temperature=2.1), "temperature"),
        (Text(1, temperature=float("nan")), "temperature"),
        (Text(1, top_p=0.0), "top_p"),
        (Text(1, top_p=float("nan")), "top_p"),
        (Text(1, stop=("a", "")), "stop"),
        (Text(1, stop=("a",) * 17), "stop"),
        (Text(1, logprobs=21), "logprobs"),
        (Text(1, logprobs=-1), "logprobs"),
        (Text(1, seed=2**63), "seed"),
    ],
)
def test_a_parameter_beyond_its_limits_is_refused_by_name(task: Text, field: str) -> None:
    with pytest.raises(InputError, match=field) as refusal:
        check(replace(REQUEST, task=task), LIMITS, 640)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, task=Choice(())),
        replace(REQUEST, task=Choice((640,))),
        replace(REQUEST, prompt=replace(PROMPT, before=(-1,))),
        replace(REQUEST, prompt=replace(PROMPT, after=(640,))),
        replace(REQUEST, prompt=replace(PROMPT, after=())),
    ],
)
def test_ids_that_the_model_does_not_know_never_reach_it(request_: Request) -> None:
    with pytest.raises(ValueError, match=r"vocabulary|letters|prompt\.after"):
        check(request_, LIMITS, 640)


@pytest.mark.parametrize(
    "limits",
    [{"memory_bytes": 0}, {"memory_bytes": 1, "chunk_tokens": 0}, {"memory_bytes": 1, "running": 9, "batch_tokens": 8}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"memory_bytes|chunk_tokens|running"):
        Limits(**limits)
