from __future__ import annotations

import pickle

import pytest

from serve import errors
from serve.errors import Overload, ServiceError


def kinds(root: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """Our own; Ray makes a subclass of every error that it carries."""
    ours = (child for child in root.__subclasses__() if child.__module__ == root.__module__)
    return [root, *(kind for child in ours for kind in kinds(child))]


@pytest.mark.parametrize("kind", kinds())
def test_an_error_survives_pickling_with_all_it_says(kind: type[ServiceError]) -> None:
    error = kind("31 is too many", field="frames", value=31, limit=30)
    error.__dict__.update({"retry_after": 7.5} if isinstance(error, Overload) else {})
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert str(back) == "31 is too many"


def test_every_code_is_said_by_one_type_only() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(set(codes)) == len(codes)


def test_the_docstring_draws_every_type_with_its_status() -> None:
    assert errors.__doc__
    for kind in kinds():
        assert f"{kind.__name__} " in errors.__doc__
        if kind not in (ServiceError, Overload):
            line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
            assert f" {kind.status} " in line


def test_an_overload_says_when_to_come_back_unless_told() -> None:
    assert errors.Busy("full").retry_after == 1.0
    assert errors.Busy("full", retry_after=3.5).retry_after == 3.5
