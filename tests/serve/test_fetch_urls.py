"""Which URLs are fetched. Every refusal comes before a name is looked up or a connection made, and repeats no URL."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from serve.errors import UrlRefused
from serve.media import urls
from serve.media.urls import MAX_URL_CHARS, Target
from tests.serve.fetching import SECRET, Connections, Names, failure, fetcher

Param = tuple[str, str]  # id, URL

SCHEMES: list[Param] = [
    ("http", "http://media.example.org/a.mp4"),
    ("ftp", "ftp://media.example.org/a.mp4"),
    ("file", "file:///etc/passwd"),
    ("file-with-host", "file://media.example.org/etc/passwd"),
    ("gopher", "gopher://media.example.org:443/_GET"),
    ("data", "data:video/mp4;base64,AAAA"),
    ("unix", "unix:/var/run/docker.sock"),
    ("s3", "s3://media.example.org/a.mp4"),
    ("https-in-http", "http://https://media.example.org/"),
    ("nested-scheme", "https:https://media.example.org/"),
    ("view-source", "view-source:https://media.example.org/"),
    ("no-scheme", "media.example.org/a.mp4"),
    ("relative-scheme", "//media.example.org/a.mp4"),
    ("no-slashes", "https:media.example.org/a.mp4"),
    ("one-slash", "https:/media.example.org/a.mp4"),
    ("three-slashes", "https:///media.example.org/a.mp4"),
    ("backslashes-for-slashes", "https:\\\\media.example.org/a.mp4"),
    ("no-host", "https:///a.mp4"),
    ("nothing-but-scheme", "https://?"),
    ("long-s-in-scheme", "http\u017f://media.example.org/"),
]
BLANKS: list[Param] = [
    ("leading-space", " https://media.example.org/"),
    ("trailing-space", "https://media.example.org/ "),
    ("trailing-newline", "https://media.example.org/\n"),
    ("newline-after-host", "https://media.example.org\n/"),
    ("tab-in-scheme", "ht\ttps://media.example.org/"),
    ("tab-in-host", "https://127.0.\t0.1/"),
    ("crlf-in-path", "https://media.example.org/\r\nHost: 127.0.0.1\r\n"),
    ("newline-in-query", "https://media.example.org/?\nx"),
    ("nul-in-host", "https://media.example.org\x00.evil.org/"),
    ("nul-in-path", "https://media.example.org/\x00"),
    ("del", "https://media.example.org/\x7f"),
    ("vertical-tab", "\x0bhttps://media.example.org/"),
    ("no-break-space", "https://media.example.org\u00a0.evil.org/"),
    ("line-separator", "https://media.example.org/\u2028"),
    ("byte-order-mark", "\ufeffhttps://media.example.org/"),
]
AUTHORITIES: list[Param] = [
    ("user", "https://user@media.example.org/"),
    ("user-and-password", "https://user:pw@media.example.org/"),
    ("empty-user", "https://@media.example.org/"),
    ("allowed-host-as-user", "https://media.example.org@169.254.169.254/"),
    ("allowed-host-and-port-as-user", "https://media.example.org:443@127.0.0.1/"),
    ("address-as-user", "https://169.254.169.254@media.example.org/"),
    ("two-at-signs", "https://a@127.0.0.1@media.example.org/"),
    ("encoded-at-sign", "https://media.example.org%40127.0.0.1/"),
    ("backslash-before-at", "https://127.0.0.1\\@media.example.org/"),
    ("backslash-after-host", "https://media.example.org\\@127.0.0.1/"),
    ("backslash-for-path", "https://127.0.0.1\\.media.example.org/"),
    ("backslash-in-path", "https://media.example.org/\\127.0.0.1"),
    ("fragment-before-at", "https://127.0.0.1#@media.example.org/"),
    ("query-before-at", "https://127.0.0.1?@media.example.org/"),
    ("semicolon", "https://127.0.0.1;media.example.org/"),
    ("comma", "https://media.example.org,127.0.0.1/"),
    ("quote", "https://media.example.org'.evil.org/"),
    ("two-hosts", "https://127.0.0.1 media.example.org/"),
    ("braces", "https://{media.example.org,127.0.0.1}/"),
]
ADDRESSES: list[Param] = [
    ("ipv4", "https://127.0.0.1/"),
    ("ipv4-metadata", "https://169.254.169.254/latest/meta-data/"),
    ("ipv4-public", "https://8.8.8.8/"),
    ("ipv4-short", "https://127.1/"),
    ("ipv4-two-parts", "https://169.254.43518/"),
    ("ipv4-decimal", "https://2130706433/"),
    ("ipv4-decimal-metadata", "https://2852039166/"),
    ("ipv4-hex", "https://0x7f000001/"),
    ("ipv4-hex-parts", "https://0x7f.0x0.0x0.0x1/"),
    ("ipv4-octal", "https://017700000001/"),
    ("ipv4-octal-parts", "https://0177.0.0.1/"),
    ("ipv4-mixed", "https://0x7f.0.1/"),
    ("ipv4-last-part-hex", "https://127.0.0.0x1/"),
    ("ipv4-zeros", "https://127.000.000.001/"),
    ("ipv4-zero", "https://0/"),
    ("ipv4-overflow", "https://4429185025/"),
    ("ipv4-trailing-dot", "https://127.0.0.1./"),
    ("ipv4-fullwidth", "https://\uff11\uff12\uff17.0.0.1/"),
    ("ipv4-circled", "https://①②⑦.⓪.⓪.①/"),
    ("ipv4-ideographic-dots", "https://127。0。0。1/"),
    ("ipv4-percent-encoded", "https://%31%32%37.0.0.1/"),
    ("name-ending-in-number", "https://media.example.org.1/"),
    ("ipv6", "https://[::1]/"),
    ("ipv6-any", "https://[::]/"),
    ("ipv6-mapped", "https://[::ffff:127.0.0.1]/"),
    ("ipv6-mapped-hex", "https://[::ffff:7f00:1]/"),
    ("ipv6-zone", "https://[fe80::1%25eth0]/"),
    ("ipv6-nat64", "https://[64:ff9b::a9fe:a9fe]/"),
    ("ipv6-without-brackets", "https://::1/"),
    ("ipv6-future", "https://[v1.fe80::1]/"),
    ("brackets-around-name", "https://[media.example.org]/"),
    ("brackets-before-name", "https://[::1].media.example.org/"),
]
NAMES: list[Param] = [
    ("localhost", "https://localhost/"),
    ("localhost-trailing-dot", "https://localhost./"),
    ("single-label", "https://metadata/"),
    ("trailing-dot", "https://media.example.org./"),
    ("two-trailing-dots", "https://media.example.org../"),
    ("leading-dot", "https://.media.example.org/"),
    ("empty-label", "https://media..example.org/"),
    ("leading-hyphen", "https://-media.example.org/"),
    ("trailing-hyphen", "https://media-.example.org/"),
    ("underscore", "https://me_dia.example.org/"),
    ("long-label", f"https://{'a' * 64}.example.org/"),
    ("long-name", f"https://{'a.' * 126}org/"),
    ("percent-encoded-name", "https://%6dedia.example.org/"),
    ("encoded-nul", "https://media.example.org%00.evil.org/"),
    ("encoded-slash", "https://media.example.org%2f.evil.org/"),
    ("encoded-dot", "https://media%2eexample.org/"),
    ("cyrillic-look-alike", "https://m\u0435dia.example.org/"),
    ("circled-letter", "https://ⓜedia.example.org/"),
    ("soft-hyphen", "https://me\u00addia.example.org/"),
    ("zero-width-space", "https://media\u200b.example.org/"),
    ("long-s", "https://media.example.org.\u017f/"),
    ("kelvin-sign", "https://\u212amedia.example.org/"),
    ("one-dot-leader", "https://media\u2024example.org/"),
    ("slash-look-alike", "https://media.example.org\u2044.evil.org/"),
    ("not-in-xn-form", "https://bücher.example.org/"),
]
UNLISTED: list[Param] = [
    ("other-host", "https://evil.org/"),
    ("allowed-host-as-prefix", "https://media.example.org.evil.org/"),
    ("allowed-host-as-suffix-of-label", "https://evilmedia.example.org/"),
    ("below-allowed-host", "https://sub.media.example.org/"),
    ("above-allowed-host", "https://example.org/"),
    ("suffix-itself", "https://cdn.example.net/"),
    ("suffix-without-dot", "https://evilcdn.example.net/"),
    ("suffix-as-prefix", "https://a.cdn.example.net.evil.org/"),
    ("address-in-name", "https://127.0.0.1.nip.io/"),
    ("metadata-by-name", "https://metadata.google.internal/computeMetadata/v1/"),
    ("service-in-cluster", "https://kubernetes.default.svc/"),
    ("xn-look-alike", "https://xn--mdia-x6d.example.org/"),
]
PORTS: list[Param] = [
    ("port-0", "https://media.example.org:0/"),
    ("port-22", "https://media.example.org:22/"),
    ("port-80", "https://media.example.org:80/"),
    ("port-8265", "https://media.example.org:8265/"),
    ("port-6379", "https://media.example.org:6379/"),
    ("port-65536", "https://media.example.org:65536/"),
    ("port-overflow", "https://media.example.org:65979/"),  # 443 modulo 2^16
    ("port-empty", "https://media.example.org:/"),
    ("port-leading-zero", "https://media.example.org:0443/"),
    ("port-plus", "https://media.example.org:+443/"),
    ("port-minus", "https://media.example.org:-443/"),
    ("port-twice", "https://media.example.org:443:443/"),
    ("port-fullwidth", "https://media.example.org:\uff14\uff14\uff13/"),
    ("port-name", "https://media.example.org:https/"),
    ("port-underscore", "https://media.example.org:4_43/"),
]
PATHS: list[Param] = [
    ("too-long", "https://media.example.org/" + "a" * MAX_URL_CHARS),
    ("not-ascii", "https://media.example.org/bücher.mp4"),
    ("lone-surrogate", "https://media.example.org/\ud800"),
    ("bad-escape", "https://media.example.org/%zz"),
    ("cut-escape", "https://media.example.org/%4"),
    ("space", "https://media.example.org/a b.mp4"),
    ("pipe", "https://media.example.org/a|b"),
    ("angle", "https://media.example.org/<script>"),
    ("two-fragments", "https://media.example.org/#a#b"),
]


def cases(*tables: list[Param]) -> list[object]:
    return [pytest.param(url, id=name) for table in tables for name, url in table]


@pytest.mark.parametrize("url", cases(SCHEMES, BLANKS, AUTHORITIES, ADDRESSES, NAMES, UNLISTED, PORTS, PATHS))
def test_refused_before_anything_is_asked(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, connections = Names(["8.8.8.8"]), Connections(monkeypatch)
    error = asyncio.run(failure(fetcher(tmp_path, names=names), url, tmp_path))
    assert isinstance(error, UrlRefused), repr(error)
    assert (names.asked, connections.addresses) == ([], [])
    assert url not in error.message


@pytest.mark.parametrize("url", cases(SCHEMES, BLANKS, AUTHORITIES, ADDRESSES, NAMES, PATHS))
def test_refused_whatever_the_list_allows(url: str) -> None:
    with pytest.raises(UrlRefused):
        Target.parse(url, "video.url")


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://media.example.org", "media.example.org", 443, "/"),
        ("HTTPS://MEDIA.example.ORG/A.mp4", "media.example.org", 443, "/A.mp4"),
        ("https://media.example.org:443/a?b=c&d=%2F", "media.example.org", 443, "/a?b=c&d=%2F"),
        ("https://media.example.org?b", "media.example.org", 443, "/?b"),
        ("https://media.example.org#@127.0.0.1/", "media.example.org", 443, "/"),
        ("https://media.example.org/@127.0.0.1/../a//b", "media.example.org", 443, "/@127.0.0.1/../a//b"),
        ("https://media.example.org/%0d%0aHost:%20x", "media.example.org", 443, "/%0d%0aHost:%20x"),
        ("https://xn--bcher-kva.example.org/", "xn--bcher-kva.example.org", 443, "/"),
        ("https://a-1.b2.example:8443/", "a-1.b2.example", 8443, "/"),
    ],
)
def test_what_is_taken_is_kept_to_the_letter(url: str, host: str, port: int, path: str) -> None:
    assert Target.parse(url, "video.url") == Target(host, port, path)


_REST = rf"(/{urls._CHAR}*)?(\?({urls._CHAR}|\?)*)?(\#({urls._CHAR}|\?)*)?"
TAKEN = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "HTTPS", "hTTps"]),
    st.from_regex(urls._HOST, fullmatch=True).filter(urls.is_host_name),
    st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format)),
    st.from_regex(_REST, fullmatch=True),
)


@settings(max_examples=100, derandomize=True, database=None, deadline=None)
@given(TAKEN)
def test_every_library_reads_what_is_taken_as_it_was_read_here(url: str) -> None:
    """No parser differential: whoever else may read such a URL sees the same host, port and path."""
    target = Target.parse(url, "video.url")
    split, x, y, u = urlsplit(url), httpx.URL(url), yarl.URL(url, encoded=True), parse_url(url)
    assert {split.hostname, x.raw_host.decode(), y.raw_host, u.host} == {target.host}
    assert {split.port or 443, x.port or 443, y.port, u.port or 443} == {target.port}
    assert {split.username, y.user, u.auth, x.userinfo.decode() or None} == {None}
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    assert path.rstrip("?") == target.path.rstrip("?")


@given(st.text(max_size=60))
@settings(max_examples=100, derandomize=True, database=None, deadline=None)
def test_any_text_is_a_target_or_a_refusal(text: str) -> None:
    for url in (text, f"https://{text}", f"https://media.example.org{text}"):
        with suppress(UrlRefused):
            target = Target.parse(url, "video.url")
            assert urls.is_host_name(target.host)
            assert target.path.isascii()
            assert target.path.isprintable()


def test_a_refusal_says_what_would_be_right_and_no_secret(tmp_path: Path) -> None:
    fetching = fetcher(tmp_path)
    unlisted = asyncio.run(failure(fetching, f"https://evil.org/a?{SECRET}", tmp_path))
    assert (unlisted.value, "from that host" in unlisted.message) == ("evil.org", True)
    port = asyncio.run(failure(fetching, f"https://media.example.org:22/a?{SECRET}", tmp_path))
    assert (port.value, port.message) == (22, "this service fetches no videos from port 22")
    long = asyncio.run(failure(fetching, f"https://media.example.org/?{SECRET}{'a' * 9000}", tmp_path))
    assert long.limit == MAX_URL_CHARS
    form = asyncio.run(failure(fetching, f"http://media.example.org/?{SECRET}", tmp_path))
    assert "https://" in form.message
    assert all("hush" not in f"{error} {error.value}" for error in (unlisted, port, long, form))
