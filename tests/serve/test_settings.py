from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from serve.local import CannotStart, _refuse_open_doors, _refuse_taken, read_settings
from serve.settings import Access, Ingress, Settings

LOCAL = Path("deploy/serve-local.yaml")


def test_the_laptops_settings_are_valid_and_scale_each_stage_alone() -> None:
    settings = read_settings(LOCAL)
    assert settings.checkpoint == "models/tiny"
    assert settings.frames.limits.max_frames > 0
    scaled = Settings.model_validate({"selector": {"replicas": 3}})
    assert (scaled.selector.replicas, scaled.encoder.replicas, scaled.decoder.replicas) == (3, 1, 1)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"encoder": {"replica": 2}}, "encoder.replica"),
        ({"encodr": {}}, "encodr"),
        ({"frames": {"limits": {"max_bites": 1}}}, "max_bites"),
        ({"selector": {"replicas": 0}}, "selector.replicas"),
        ({"decoder": {"device": "gpu"}}, "decoder.device"),
        ({"encoder": {"batch_patches": 0}}, "encoder.batch_patches"),
        ({"encoder": {"linger_seconds": 0.5}}, "encoder.linger_seconds"),
        ({"selector": {"batch_questions": 257}}, "selector.batch_questions"),
        ({"decoder": {"dtype": "float8"}}, "decoder.dtype"),
        ({"reconstructor": {}}, "reconstructor.checkpoint"),
        ({"reconstructor": {"checkpoint": "pi3", "max_frames": 257}}, "reconstructor.max_frames"),
        ({"reconstructor": {"checkpoint": "pi3", "min_confidence": 2}}, "reconstructor.min_confidence"),
        ({"decoder": {"device": "cuda"}}, "gpus 0"),
        ({"ingress": {"media_urls": {"enabled": True}}}, "enabled without hosts"),
        ({"ingress": {"media_urls": {"hosts": ["10.0.0.1"]}}}, "'10.0.0.1' is no host name"),
        ({"ingress": {"media_urls": {"hosts": ["*"]}}}, "'*' is no host name"),
        ({"ingress": {"media_urls": {"hosts": [".org"]}}}, "'.org' is no host name"),
        ({"ingress": {"media_urls": {"hosts": ["Example.org"]}}}, "'Example.org' is no host name"),
        ({"ingress": {"media_urls": {"ports": [0]}}}, "media_urls.ports"),
        ({"ingress": {"media_urls": {"http": True}}}, "media_urls.http"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    assert place in str(caught.value).replace("\n", " ")


def test_a_config_that_is_none_is_refused_in_our_words(tmp_path: Path) -> None:
    for text in ("", "applications: []", "applications: [{args: {encoder: {replicas: many}}}]", "{"):
        config = tmp_path / "serve.yaml"
        config.write_text(text)
        with pytest.raises(CannotStart, match=str(config)):
            read_settings(config)
    with pytest.raises(CannotStart, match="missing"):
        read_settings(tmp_path / "missing.yaml")


def test_no_open_door_without_keys(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"on 0\.0\.0\.0 others can reach it, and there are no API keys"):
        _refuse_open_doors(Settings(), "0.0.0.0")
    _refuse_open_doors(Settings(), "127.0.0.1")
    _refuse_open_doors(Settings(ingress=Ingress(access=Access(open=True))), "0.0.0.0")
    missing = Settings(ingress=Ingress(access=Access(keys_file=tmp_path / "none.yaml")))
    with pytest.raises(CannotStart, match=r"none\.yaml cannot be read"):
        _refuse_open_doors(missing, "127.0.0.1")


def test_a_taken_port_is_named_before_anything_starts() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=str(port)):
            _refuse_taken(port)
