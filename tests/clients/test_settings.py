"""Where a client finds the service, what it says of itself, and how long it waits."""

from __future__ import annotations

import ssl

import dsr_client
import httpx
import pytest
from dsr_client import Client
from dsr_client._settings import DEFAULT_TIMEOUT, Settings, timeout_of

from tests.clients.conftest import Connect
from tests.clients.wire import VIDEO_ID, Reply, Wire, answer


def test_the_environment_says_where_the_service_is_and_the_key_to_it(
    connect: Connect, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSR_URL", f"{wire.url}/behind/")
    monkeypatch.setenv("DSR_API_KEY", " key-of-the-environment\n")
    wire.script(Reply(answer()), Reply(answer()))
    client = connect()
    client.ask(VIDEO_ID, "How?")
    connect(wire.url, api_key="key-of-the-call").ask(VIDEO_ID, "How?")
    assert [request.path for request in wire.seen] == ["/behind/v1/answers", "/v1/answers"]
    keys = [request.headers["authorization"] for request in wire.seen]
    assert keys == ["Bearer key-of-the-environment", "Bearer key-of-the-call"]
    assert "key-of-the-environment" not in repr(client) + repr(vars(client))


def test_without_a_key_none_is_sent_and_the_client_says_who_it_is(client: Client, wire: Wire) -> None:
    wire.script(Reply(answer()))
    client.ask(VIDEO_ID, "How?")
    [request] = wire.seen
    assert "authorization" not in request.headers
    assert request.headers["user-agent"].startswith(f"dsr-client/{dsr_client.__version__} python/")
    assert request.headers["x-request-id"].startswith("req_")


def test_by_default_the_service_is_on_this_machine(connect: Connect) -> None:
    assert connect().url == "http://127.0.0.1:8000"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://a:b:c", "/v1"])
def test_a_url_that_is_none_is_refused(connect: Connect, url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        connect(url)


def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(connect: Connect) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        connect(api_key="top-secret\nX: y")
    assert "top-secret" not in str(caught.value)


def test_every_phase_has_a_finite_timeout_and_a_number_bounds_them_all() -> None:
    assert all(isinstance(seconds, float) and 0 < seconds < 600 for seconds in DEFAULT_TIMEOUT.as_dict().values())
    assert timeout_of(3.0).as_dict() == {"connect": 3, "read": 3, "write": 3, "pool": 3}
    assert timeout_of(1000).as_dict() == {**DEFAULT_TIMEOUT.as_dict(), "read": 1000}
    own = httpx.Timeout(7)
    assert timeout_of(own) is own
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            timeout_of(wrong)


def test_a_proxy_of_the_environment_is_used_unless_it_is_told_not_to(
    monkeypatch: pytest.MonkeyPatch, connect: Connect, wire: Wire
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", wire.url)
    wire.script(Reply(answer()))
    connect("http://service.invalid").ask(VIDEO_ID, "How?")
    assert wire.seen[0].headers["host"] == "service.invalid"
    monkeypatch.setenv("no_proxy", "service.invalid")
    assert Settings.resolve("http://service.invalid", None, None, 2).proxy() is None


def test_certificates_are_checked_for_https_and_not_read_for_http() -> None:
    def tls(url: str) -> ssl.SSLContext | bool:
        return Settings.resolve(url, None, None, 2).tls()

    assert tls("https://example.org") is True
    plain = tls("http://example.org")
    assert isinstance(plain, ssl.SSLContext)
    assert (plain.verify_mode, plain.cert_store_stats()["x509"]) == (ssl.CERT_REQUIRED, 0)
