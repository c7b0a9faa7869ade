"""A media URL, read once. What does not fit the grammar is refused; what fits can be read in one way only.

No library's parser is used, because they repair what they read, each in another way: urllib.parse drops tabs and line
breaks, others turn backslashes into slashes or `127.1` into an address. A check by one and a connection by another is
how servers were led to their own networks (CVE-2026-24779, CVE-2026-33626). This grammar is the part of RFC 3986 on
which they all agree, which the tests prove; the connection is made from the same `Target` that was checked.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from serve.errors import UrlRefused

HTTPS_PORT = 443
MAX_URL_CHARS = 8192  # signed URLs of object stores have up to 2,000
MAX_HOST_CHARS = 253
_FORM = "https://host.name/path?query, in ASCII with everything else percent-encoded, without user name and password"

_CHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
GRAMMAR = (
    r"(?i:https)://(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
    rf"(?P<path>/{_CHAR}*)?(?P<query>\?(?:{_CHAR}|\?)*)?(?:\#(?:{_CHAR}|\?)*)?"
)
_URL = re.compile(GRAMMAR, re.ASCII)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# No top-level domain begins with a digit; every notation of an IPv4 address has a last part that does.
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]){_LABEL}", re.ASCII)


@dataclass(frozen=True)
class Target:
    """Where a request goes. `path` begins with a slash and includes the query, which may be a secret: never log it."""

    host: str  # lower case
    port: int
    path: str

    @classmethod
    def parse(cls, url: str, field: str) -> Self:
        """The fragment is dropped, the rest is kept to the letter.

        Raises:
            UrlRefused: `url` has not the one form that is taken. No part of it stands in the error.
        """
        if len(url) > MAX_URL_CHARS:
            message = f"the URL has {len(url)} characters; at most {MAX_URL_CHARS}"
            raise UrlRefused(message, field=field, value=len(url), limit=MAX_URL_CHARS)
        found = _URL.fullmatch(url)
        if found is None:
            raise UrlRefused(f"a URL has the form {_FORM}", field=field)
        host = found["host"].lower()
        if not is_host_name(host):
            raise UrlRefused("the URL's host is no full host name; addresses are not taken", field=field)
        return cls(host, int(found["port"] or HTTPS_PORT), (found["path"] or "/") + (found["query"] or ""))

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        return self.host if self.port == HTTPS_PORT else f"{self.host}:{self.port}"

    def refuse_unlisted(self, hosts: Collection[str], ports: Collection[int], field: str) -> None:
        """
        Raises:
            UrlRefused: the host is not among `hosts` (names, or `.suffix` for all names below it), or the port not
                among `ports`.
        """
        if not any(self.host.endswith(one) if one.startswith(".") else self.host == one for one in hosts):
            raise UrlRefused("this service fetches no videos from that host", field=field, value=self.host)
        if self.port not in ports:
            raise UrlRefused(f"this service fetches no videos from port {self.port}", field=field, value=self.port)

    def redirected(self, location: str, field: str) -> Target:
        """What a redirect's `Location` names: a whole URL, or a path on the same server. UrlRefused for the rest."""
        if location.startswith("/") and not location.startswith("//"):
            location = f"https://{self.authority}{location}"
        return Target.parse(location, field)


def is_host_name(text: str) -> bool:
    """Two or more labels in lower case; an international name in its `xn--` form. No address in any notation."""
    return len(text) <= MAX_HOST_CHARS and _HOST.fullmatch(text) is not None
