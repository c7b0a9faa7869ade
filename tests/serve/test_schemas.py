from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from models.errors import InputError, InvalidQuestion, OutOfLimits
from serve.errors import Malformed, ServiceError
from serve.schemas import (
    REPEATED,
    Answer,
    AnswerParameters,
    AnswerRequest,
    Choice,
    Problem,
    Usage,
    VideoInfo,
    VideoSource,
    from_form,
    refusal,
)

ID = "vid_" + "0" * 64


def request(**changes: Any) -> dict[str, Any]:
    return {"video": {"id": ID}, "question": "Does it move?", **changes}


def refused(body: Any) -> InputError | ServiceError:
    """The same error whether the body comes as text or parsed."""
    with pytest.raises(ValidationError) as from_python:
        AnswerRequest.model_validate(body)
    with pytest.raises(ValidationError) as from_json:
        AnswerRequest.model_validate_json(json.dumps(body))
    first, second = refusal(from_python.value.errors()), refusal(from_json.value.errors())
    assert type(first) is type(second)
    assert (first.field, first.limit) == (second.field, second.limit)
    return second


def test_the_defaults_are_those_of_the_contract() -> None:
    parsed = AnswerRequest.model_validate(request())
    assert parsed.model_dump(exclude={"video", "question"}) == {
        "options": (),
        "frames": None,
        "max_tokens": 64,
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": (),
        "seed": None,
        "geometry": "gsm",
        "explain": False,
        "stream": False,
        "timeout": None,
    }


def test_a_whole_request_of_the_contract_is_read() -> None:
    body = request(
        options=["yes", "no"],
        frames=16,
        max_tokens=8,
        temperature=0,
        geometry="off",
        explain=False,
        stream=False,
    )
    parsed = AnswerRequest.model_validate_json(json.dumps(body))
    assert json.loads(parsed.model_dump_json(exclude_unset=True)) == {**body, "temperature": 0.0}


def test_base64_is_decoded() -> None:
    data = bytes(range(256))
    body = request(video={"data": base64.b64encode(data).decode()})
    assert AnswerRequest.model_validate(body).video.data == data
    assert AnswerRequest.model_validate_json(json.dumps(body)).video.data == data


@pytest.mark.parametrize("options", [["a", "b"], [chr(65 + i) for i in range(26)]])
def test_two_to_26_options_are_allowed(options: list[str]) -> None:
    assert AnswerRequest.model_validate(request(options=options)).options == tuple(options)


@pytest.mark.parametrize(
    ("options", "limit"),
    [(["a"], 26), ([str(i) for i in range(27)], 26), (["a", "a"], None), (["a", " a "], None), (["a", ""], None)],
)
def test_options_that_make_no_sense_are_an_invalid_question(options: list[str], limit: int | None) -> None:
    error = refused(request(options=options))
    assert isinstance(error, InvalidQuestion)
    assert (error.field, error.limit) == ("options", limit)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_an_invalid_question(question: str) -> None:
    error = refused(request(question=question))
    assert isinstance(error, InvalidQuestion)
    assert error.field == "question"


@pytest.mark.parametrize(
    ("change", "field", "value", "limit"),
    [
        ({"frames": 0}, "frames", 0, 1),
        ({"frames": 257}, "frames", 257, 256),
        ({"max_tokens": 0}, "max_tokens", 0, 1),
        ({"max_tokens": 4097}, "max_tokens", 4097, 4096),
        ({"temperature": -0.1}, "temperature", -0.1, 0),
        ({"temperature": 2.5}, "temperature", 2.5, 2),
        ({"top_p": 0.0}, "top_p", 0, 0),
        ({"top_p": 1.5}, "top_p", 1.5, 1),
        ({"seed": 2**63}, "seed", 2**63, 2**63),
        ({"stop": [""]}, "stop.0", 0, 1),
        ({"stop": ["x"] * 17}, "stop", 17, 16),
        ({"question": "x" * 2001}, "question", 2001, 2000),
        ({"options": ["a", "x" * 501]}, "options.1", 501, 500),
        ({"video": {"id": ""}}, "video.id", 0, 1),
        ({"video": {"id": "x" * 129}}, "video.id", 129, 128),
    ],
)
def test_a_broken_bound_names_field_value_and_limit(
    change: dict[str, Any], field: str, value: float, limit: float
) -> None:
    error = refused(request(**change))
    assert type(error) is OutOfLimits
    assert (error.field, error.value, error.limit) == (field, value, limit)
    assert str(limit) in error.message


@pytest.mark.parametrize("change", [{"frames": 1}, {"frames": 256}, {"question": "x" * 2000}, {"temperature": 2}])
def test_a_value_at_its_bound_is_allowed(change: dict[str, Any]) -> None:
    AnswerRequest.model_validate(request(**change))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (request(frames="32"), "frames"),
        (request(frames=32.5), "frames"),
        (request(frames=True), "frames"),
        (request(stream=1), "stream"),
        (request(temperature="0"), "temperature"),
        (request(question=None), "question"),
        (request(question=5), "question"),
        (request(options="ab"), "options"),
        (request(options={"A": "yes"}), "options"),
        (request(options=["a", 1]), "options.1"),
        (request(colour="red"), "colour"),
        (request(video={"id": ID, "path": "/etc/passwd"}), "video.path"),
        (request(video=ID), "video"),
        (request(video={"data": "no base64!"}), "video.data"),
        (request(video={"data": 5}), "video.data"),
        (request(video={}), "video"),
        (request(video={"id": ID, "data": "AAAA"}), "video"),
        (request(video={"id": None}), "video"),
        ({"video": {"id": ID}}, "question"),
        ({"question": "Does it move?"}, "video"),
        ([], None),
        ("text", None),
    ],
)
def test_a_wrong_shape_is_malformed_and_names_the_field(body: Any, field: str | None) -> None:
    error = refused(body)
    assert type(error) is Malformed
    assert error.field == field


def test_a_value_that_is_none_of_the_allowed_ones_says_which_are() -> None:
    error = refused(request(geometry="full"))
    assert type(error) is InputError
    assert (error.field, error.value, error.limit) == ("geometry", "full", "'gsm' or 'off'")


def test_the_value_of_an_unknown_field_is_not_repeated() -> None:
    error = refused(request(password="hunter2"))
    assert error.value is None
    assert "hunter2" not in error.message


def test_several_faults_are_counted() -> None:
    assert "(and 2 more)" in refused(request(frames=0, max_tokens=0, colour="red")).message


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN', "\x00"])
def test_what_is_not_json_is_malformed(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AnswerRequest.model_validate_json(text)
    error = refusal(caught.value.errors())
    assert type(error) is Malformed
    assert "not JSON" in error.message


def test_infinite_and_undefined_temperatures_are_refused() -> None:
    for temperature in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            AnswerRequest.model_validate(request(temperature=temperature))


def test_broken_unicode_is_refused() -> None:
    with pytest.raises(ValidationError):
        AnswerRequest.model_validate(request(question="\ud800"))


def test_a_form_gives_the_same_parameters_as_json() -> None:
    form = [
        ("question", "Does it move?"),
        ("options", "yes"),
        ("frames", "16"),
        ("options", "no"),
        ("temperature", "0"),
    ]
    form += [("explain", "false"), ("geometry", "off")]
    assert from_form(AnswerParameters, form, REPEATED) == AnswerParameters(
        question="Does it move?", options=("yes", "no"), frames=16, temperature=0, explain=False, geometry="off"
    )


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ([("question", "a"), ("question", "b")], Malformed, "question"),
        ([("question", "a"), ("frames", "many")], Malformed, "frames"),
        ([("question", "a"), ("frames", "1000")], OutOfLimits, "frames"),
        ([("question", "a"), ("colour", "red")], Malformed, "colour"),
        ([("question", "a"), ("options", "yes")], InvalidQuestion, "options"),
        ([("options", "yes")], Malformed, "question"),
    ],
)
def test_a_form_is_as_strict_as_json(fields: list[tuple[str, str]], kind: type[Exception], field: str) -> None:
    with pytest.raises(kind) as caught:
        from_form(AnswerParameters, fields, REPEATED)
    assert caught.value.field == field  # type: ignore[attr-defined]


def test_an_answer_has_the_fields_of_the_contract() -> None:
    answer = Answer(
        id="ans_1",
        model="dsr-tiny",
        text="A",
        choice=Choice(letter="A", text="yes", probability=0.75),
        probabilities={"A": 0.75, "B": 0.25},
        usage=Usage(video_tokens=1, geometry_tokens=2, prompt_tokens=3, completion_tokens=4),
        timings={"decoder": 0.5},
        cache={"decoder": "miss"},
        video=VideoInfo(id=ID, duration=1.0, fps=30.0, width=640, height=360, frames=32),
    )
    said = json.loads(answer.model_dump_json())
    names = ["id", "model", "text", "choice", "probabilities", "usage", "timings", "spans", "cache", "video"]
    assert list(said) == names
    assert Answer.model_validate_json(answer.model_dump_json()) == answer
    free = answer.model_copy(update={"choice": None, "probabilities": {}})
    assert json.loads(free.model_dump_json())["choice"] is None


def test_every_field_of_the_contract_is_described() -> None:
    for model in (VideoSource, AnswerParameters, Problem):
        for name, field in model.model_fields.items():
            said = field.description or field.examples or name in ("title", "status", "detail", "request_id")
            assert said, f"{model.__name__}.{name}"


def test_the_contract_imports_neither_torch_nor_ray_nor_http() -> None:
    modules = "serve.schemas, serve.cache, serve.errors, serve.keys, serve.metrics, serve.store"
    code = f"import sys, {modules}; print([m for m in ('torch', 'ray', 'fastapi') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
