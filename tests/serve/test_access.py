"""Keys, quotas, claims and the door, over a backend without a model."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.layout import recognise
from models.video import VideoFacts
from serve.access import keyring
from serve.access.claims import Claims
from serve.access.keyring import BadKeyFile, Caller, KeyLimits, Keyring, new_key
from serve.access.quota import Quotas
from serve.api import create_app
from serve.errors import Busy
from serve.media.fetch import Fetcher
from serve.settings import Access, Ingress, MediaUrls, Store
from serve.store import VideoStore
from tests.serve.backends import FACTS, BrokenBackend

ALICE, BOB = new_key()[0], new_key()[0]
CLIP = b"the bytes of a clip"


def line(name: str, *keys: str, **limits: object) -> str:
    hashes = ", ".join(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    more = "".join(f", {field}: {value}" for field, value in limits.items())
    return f"  {name}: {{sha256: [{hashes}]{more}}}\n"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def basic(key: str, user: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()}


class Held(BrokenBackend):
    """Knows every stored video."""

    async def probe(self, video: str) -> VideoFacts:
        return FACTS


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + line("alice", ALICE) + line("bob", BOB))
    return path


@pytest.fixture
def looking_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "LOOK_AGAIN_SECONDS", 0.0)


class Service:
    """The application with an access of its own; each call is a client of its own."""

    def __init__(self, root: Path, access: Access, fetcher: Fetcher | None = None) -> None:
        settings = Ingress(deadline_seconds=0.2, max_body_bytes=100_000, access=access)
        store = Store(url=str(root / "videos"), max_bytes=1_000_000)
        self.backend = Held()
        self.store = VideoStore(store.absolute, store.max_bytes, store.max_age_seconds)
        model = recognise(Path("models/tiny")).model
        claims = Claims(store) if access.keys_file else None
        self.app = create_app(self.backend, self.store, model, settings, claims=claims, fetcher=fetcher)

    def __call__(self, method: str, path: str, *, peer: str = "127.0.0.1", host: str = "test", **how: Any) -> Any:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
                return await http.request(method, path, **how)

        return asyncio.run(ask())

    def upload(self, key: str, data: bytes = CLIP) -> Any:
        return self("POST", "/v1/videos", headers=bearer(key), files={"video": ("clip.mp4", data)})


@pytest.fixture
def service(tmp_path: Path, key_file: Path) -> Service:
    return Service(tmp_path, Access(keys_file=key_file))


ROUTES = [
    ("GET", "/"),
    ("GET", "/playground/app.js"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("POST", "/v1/answers"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/reconstructions"),
    ("GET", "/v1/models"),
    ("POST", "/v1/videos"),
    ("GET", "/v1/videos"),
    ("GET", "/v1/videos/vid_" + "0" * 64),
    ("DELETE", "/v1/videos/vid_" + "0" * 64),
    ("DELETE", "/v1/caches"),
    ("GET", "/no/such/route"),
    ("GET", "/livez/"),
    ("GET", "//livez"),
    ("GET", "/v1/../livez/../v1/videos"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("dsr_wrong"),
        bearer(ALICE[:-1]),
        {"Authorization": ALICE},
        basic("no"),
        {"X-Api-Key": ALICE},
    ],
    ids=["none", "empty", "wrong", "cut", "bare", "basic", "elsewhere"],
)
def test_without_a_key_no_route_answers(service: Service, method: str, path: str, headers: dict[str, str]) -> None:
    response = service(method, path, headers=headers)
    assert (response.status_code, response.json().get("code", "unauthorized")) == (401, "unauthorized")
    assert "Bearer" in response.headers["www-authenticate"]
    assert ALICE not in response.text


def test_every_route_of_the_application_is_in_the_table(service: Service) -> None:
    listed = {path.split("?")[0] for _, path in ROUTES}
    paths = [str(getattr(route, "path", "")) for route in service.app.routes]
    routes = {path.replace("{video}", "vid_" + "0" * 64).replace("{name}", "app.js") for path in paths}
    rest = {"/docs/oauth2-redirect", "/redoc", "/playground/sample/app.js"}  # of the same kind as their neighbours
    assert routes - listed == {"/livez", "/readyz"} | rest


def test_health_needs_no_key(service: Service) -> None:
    assert service("GET", "/livez", peer="10.0.0.9").status_code == 200
    assert service("GET", "/readyz", peer="10.0.0.9").status_code == 503, "it answers, though nothing is ready"


def test_a_key_opens_by_bearer_and_by_basic(service: Service) -> None:
    assert service("GET", "/v1/models", headers=bearer(ALICE)).status_code == 200
    assert service("GET", "/v1/models", headers=basic(BOB, "anybody")).status_code == 200
    assert service("GET", "/v1/models", headers={"Authorization": f"bearer {BOB}"}).status_code == 200


def test_the_body_of_a_stranger_is_never_read(service: Service) -> None:
    read = []

    async def body() -> Any:
        read.append(1)
        yield b"x"

    assert service("POST", "/v1/videos", content=body()).status_code == 401
    assert not read


@pytest.mark.usefixtures("looking_at_once")
def test_keys_change_without_a_restart(service: Service, key_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def status(key: str) -> int:
        return int(service("GET", "/v1/models", headers=bearer(key)).status_code)

    new = new_key()[0]
    key_file.write_text("keys:\n" + line("alice", ALICE, new))
    assert (status(ALICE), status(new), status(BOB)) == (200, 200, 401), "bob is revoked, alice has a second key"
    with caplog.at_level(logging.ERROR):
        key_file.write_text("keys: [" + "broken")
        assert (status(ALICE), status(BOB)) == (200, 401), "a broken file changes nothing"
    assert "stay as they were" in caplog.text
    os.remove(key_file)
    assert status(new) == 200
    key_file.write_text("keys: {}")
    assert (status(ALICE), status(new)) == (401, 401)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file"),
        ("keys: 3", "keys"),
        ("keys:\n  alice: {sha256: []}", "keys.alice.sha256"),
        (f"keys:\n  alice: {{sha256: [{ALICE}]}}", "keys.alice.sha256.0"),
        (f"keys:\n  {ALICE}: {{sha256: [{'0' * 64}]}}", "(no name)"),
        (f"keys:\n  alice: {{sha256: [{'0' * 64}], requests_per_minute: 0}}", "requests_per_minute"),
        (f"keys:\n  alice: {{sha256: [{'0' * 64}], rate: 1}}", "Extra inputs"),
        ("keys: {a: [", "line 1"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        ("x" * (keyring.MAX_FILE_BYTES + 1), "more than"),
    ],
)
def test_a_key_file_that_makes_no_sense_is_said_at_the_start_without_its_secrets(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(BadKeyFile, match=str(path)) as error:
        Service(tmp_path, Access(keys_file=path))
    assert says in str(error.value)
    assert ALICE not in str(error.value)
    with pytest.raises(BadKeyFile, match="cannot be read"):
        Keyring(tmp_path / "none", KeyLimits())


def test_without_keys_the_service_is_for_its_own_machine(tmp_path: Path) -> None:
    closed, opened = Service(tmp_path, Access()), Service(tmp_path, Access(open=True))
    for peer in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert closed("GET", "/v1/models", peer=peer, host="localhost:8000").status_code == 200, peer
    for peer in ("10.0.0.9", "192.168.1.2", "8.8.8.8", "fe80::1", "::ffff:10.0.0.9", "not an address"):
        refused = closed("GET", "/v1/models", peer=peer, host="localhost", headers={"X-Forwarded-For": "127.0.0.1"})
        assert (refused.status_code, "access.open" in refused.text) == (401, True), peer
        assert opened("GET", "/v1/models", peer=peer).status_code == 200, peer


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "8.8.8.8", "[::2]"]
)
def test_another_name_that_points_here_is_refused(tmp_path: Path, host: str) -> None:
    response = Service(tmp_path, Access())("GET", "/v1/models", host=host)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    for own in ("127.0.0.1:8000", "localhost", "[::1]:9", "dsr.localhost"):
        assert Service(tmp_path, Access())("GET", "/v1/models", host=own).status_code == 200


CROSS_SITE = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://test:81"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_sites_page_cannot_act_for_a_visitor(service: Service, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/answers"), ("GET", "/v1/videos"), ("DELETE", "/v1/caches")):
        assert service(method, path, headers={**basic(ALICE), **headers}).status_code == 403
    assert service("GET", "/v1/videos", headers={**bearer(ALICE), **headers}).status_code == 200, "it has a key itself"
    assert service("GET", "/v1/videos", headers={**basic(ALICE), "Origin": "http://test"}).status_code == 200


def test_no_other_origin_may_read_unless_it_is_listed(tmp_path: Path, key_file: Path) -> None:
    origin, asks = "https://lab.example", {"Access-Control-Request-Method": "POST"}
    closed = Service(tmp_path, Access(keys_file=key_file))
    response = closed("OPTIONS", "/v1/answers", headers={"Origin": origin, **asks})
    assert not [name for name in response.headers if name.startswith("access-control")]
    listed = Service(tmp_path, Access(keys_file=key_file, origins=(origin,)))
    assert listed("OPTIONS", "/v1/answers", headers={"Origin": origin, **asks}).headers[
        "access-control-allow-origin"
    ] == (origin)
    other = listed("OPTIONS", "/v1/answers", headers={"Origin": "https://evil.example", **asks})
    assert "access-control-allow-origin" not in other.headers
    with pytest.raises(ValueError, match="origins"):
        Access(origins=("*",))


def test_every_response_has_the_security_headers(service: Service) -> None:
    for path in ("/", "/v1/models", "/livez", "/no/such"):
        headers = service("GET", path, headers=bearer(ALICE)).headers
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert service("GET", "/v1/models", headers=bearer(ALICE)).headers["cache-control"] == "no-store"
    assert service("GET", "/", headers=bearer(ALICE)).headers["cache-control"] == "no-cache", "its own stays"


def test_a_video_belongs_to_who_has_sent_it(service: Service) -> None:
    video = service.upload(ALICE).json()["id"]
    path = f"/v1/videos/{video}"
    ask = {"video": {"id": video}, "question": "?"}
    chat = {
        "model": "dsr-tiny",
        "messages": [{"role": "user", "content": [
            {"type": "video_url", "video_url": {"url": f"dsr://{video}"}}, {"type": "text", "text": "?"}]}],
    }  # fmt: skip
    assert service("GET", path, headers=bearer(ALICE)).status_code == 200
    unknown = service("GET", "/v1/videos/vid_" + "0" * 64, headers=bearer(BOB))
    others = service("GET", path, headers=bearer(BOB))
    assert (others.status_code, others.json()["detail"]) == (404, unknown.json()["detail"])
    assert service("DELETE", path, headers=bearer(BOB)).status_code == 404
    assert service("POST", "/v1/answers", headers=bearer(BOB), json=ask).status_code == 404
    assert service("POST", "/v1/chat/completions", headers=bearer(BOB), json=chat).status_code == 404
    assert service("POST", "/v1/answers", headers=bearer(ALICE), json=ask).status_code == 504, "the backend hangs"
    assert service("GET", "/v1/videos", headers=bearer(BOB)).json()["videos"] == []
    assert [v["id"] for v in service("GET", "/v1/videos", headers=bearer(ALICE)).json()["videos"]] == [video]


def test_the_same_bytes_of_two_callers_stay_until_both_have_deleted_them(service: Service) -> None:
    video = service.upload(ALICE).json()["id"]
    assert service.upload(BOB).json()["id"] == video
    path = f"/v1/videos/{video}"
    assert service("DELETE", path, headers=bearer(ALICE)).status_code == 204
    assert service("GET", path, headers=bearer(ALICE)).status_code == 404
    assert service("GET", path, headers=bearer(BOB)).status_code == 200
    assert service.backend.flushed == []
    assert service("DELETE", path, headers=bearer(BOB)).status_code == 204
    assert (service.store.usage(), service.backend.flushed) == ((0, 0), [video])


def test_a_video_that_was_fetched_for_a_caller_is_the_callers(tmp_path: Path, key_file: Path) -> None:
    service = Service(tmp_path, Access(keys_file=key_file))
    url = {"video": {"url": "https://media.example.org/clip.mp4"}, "question": "?"}
    assert service("POST", "/v1/answers", headers=bearer(ALICE), json=url).status_code == 400, "it is off"

    class Fetched(Fetcher):
        async def keep(self, url: str, field: str) -> str:
            return service.store.put(io.BytesIO(CLIP))

    fetching = Service(tmp_path, Access(keys_file=key_file), fetcher=Fetched(MediaUrls(), service.store))
    assert fetching("POST", "/v1/answers", headers=bearer(ALICE), json=url).status_code == 504, "the backend hangs"
    [video] = fetching("GET", "/v1/videos", headers=bearer(ALICE)).json()["videos"]
    assert fetching("GET", f"/v1/videos/{video['id']}", headers=bearer(BOB)).status_code == 404


def test_claims_to_what_is_long_gone_are_forgotten(tmp_path: Path) -> None:
    claims = Claims(Store(url=str(tmp_path), max_age_seconds=60))
    gone, held, new = (f"vid_{digit * 64}" for digit in "123")
    for video in (gone, held, new):
        claims.add("alice", video)
    for video in (gone, held):
        os.utime(tmp_path / "claims" / "alice" / video, (0, 0))
    assert claims.of("alice", [held]) == [held]
    assert (claims.has("alice", gone), claims.has("alice", held), claims.has("alice", new)) == (False, True, True)
    assert not claims.has("alice", "../alice/" + held)


def test_a_callers_requests_are_counted_in_time(tmp_path: Path) -> None:
    now = [0.0]
    quotas = Quotas(replicas=2, clock=lambda: now[0])
    alice, bob = (Caller(name, KeyLimits(requests_per_minute=120)) for name in ("alice", "bob"))
    for _ in range(10):  # ten seconds' worth of this replica's half
        with quotas.request(alice):
            pass
    with pytest.raises(Busy, match="120 requests per minute") as busy, quotas.request(alice):
        pass
    assert busy.value.retry_after == pytest.approx(1.0)
    with quotas.request(bob):
        pass
    now[0] += 1.0
    with quotas.request(alice):
        pass


def test_a_callers_requests_at_a_time_are_counted() -> None:
    quotas, alice = Quotas(), Caller("alice", KeyLimits(concurrent=2))
    with ExitStack() as stack:
        stack.enter_context(quotas.request(alice))
        stack.enter_context(quotas.request(alice))
        with pytest.raises(Busy, match="the limit is 2"), quotas.request(alice):
            pass
    with quotas.request(alice):
        pass


def test_a_callers_bytes_are_counted_and_the_wait_is_honest() -> None:
    now = [0.0]
    quotas, alice = Quotas(clock=lambda: now[0]), Caller("alice", KeyLimits(bytes_per_minute=6000))
    with quotas.request(alice) as bring:
        bring(9000)  # nobody is cut off in the middle
    with pytest.raises(Busy, match="6000 bytes per minute") as busy, quotas.request(alice):
        pass
    assert 30 < busy.value.retry_after < 31
    now[0] += busy.value.retry_after
    with quotas.request(alice):
        pass


def test_limits_of_the_file_reach_the_client_as_429_with_retry_after(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys:\n" + line("alice", ALICE, requests_per_minute=6) + line("bob", BOB, bytes_per_minute=1))
    service = Service(tmp_path, Access(keys_file=path))
    assert service("GET", "/v1/models", headers=bearer(ALICE)).status_code == 200
    refused = service("GET", "/v1/videos", headers=bearer(ALICE))
    assert (refused.status_code, refused.json()["field"]) == (429, "requests_per_minute")
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert service.upload(BOB).status_code == 201
    assert service.upload(BOB).json()["field"] == "bytes_per_minute"


def test_a_full_disk_is_507_and_leaves_nothing_behind(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(28, "No space left on device", "/secret/place")

    put = service.store.put
    monkeypatch.setattr(service.store, "put", lambda source: put(Full()))
    response = service.upload(ALICE)
    assert (response.status_code, response.json()["code"]) == (507, "store_full")
    assert "/secret" not in response.text
    assert service.store.usage() == (0, 0)
