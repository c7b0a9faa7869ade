"""A step of the recipe, measured at the tiny size."""

from __future__ import annotations

import json

import pytest

from training.cost import main


def test_each_number_of_layers_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--preset", "tiny", "--layers", "1", "2", "--steps", "1"]) == 0
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (one["layers"], two["layers"]) == (1, 2)
    assert one["tokens"] == two["tokens"] > 256, "video, geometry and text"
    assert one["planned"] <= two["planned"]
    for line in (one, two):
        assert line["peak"] > 0
        assert min(line[part] for part in ("geometry", "forward", "backward", "update")) >= 0
        assert line["device"]
