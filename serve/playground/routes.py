"""The page's files and the checkpoint's sample, as routes. Only what is listed here is ever served."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

HERE = Path(__file__).parent
PAGE = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SAMPLE = {"clip.mp4": "video/mp4", "question.json": "application/json"}

# Neither another origin nor a line inside the page runs, paints or is asked. `blob:` is the clip that a visitor chose.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), display-capture=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Kept, but asked about before each use: an updated service never meets a page of its predecessor.
HEADERS = {**SECURITY, "Cache-Control": "no-cache"}


@dataclass(frozen=True)
class Asset:
    """One file of the page, held in memory. `etag` is of its content."""

    body: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> Asset:
        body = path.read_bytes()
        return cls(body, TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        headers = {**HEADERS, "ETag": self.etag}
        if _knows(request, self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)


def playground(app: FastAPI, sample: Path | None) -> None:
    """Adds the page at `/`, its files at `/playground/{name}`, and `clip.mp4` and `question.json` of `sample`.

    `sample`: a checkpoint's directory of that name; without it, or without one of its files, that file is a 404 and
    the page offers no sample. OSError when a file of the page itself cannot be read.
    """
    assets = {path.name: Asset.read(path) for path in sorted(HERE.iterdir()) if path.suffix in TYPES}

    async def page(request: Request) -> Response:
        return assets[PAGE].response(request)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name == PAGE or name not in assets:
            raise HTTPException(404)
        return assets[name].response(request)

    async def sampled(request: Request) -> Response:
        name = request.path_params["name"]
        if sample is None or name not in SAMPLE or not (sample / name).is_file():
            raise HTTPException(404)
        return FileResponse(sample / name, headers=HEADERS, media_type=SAMPLE[name])

    _add(app, "/", page)
    _add(app, "/playground/{name}", asset)
    _add(app, "/playground/sample/{name}", sampled)


def _add(app: FastAPI, path: str, answer: Callable[[Request], Awaitable[Response]]) -> None:
    """A route that the API's document leaves out."""
    app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)


def _knows(request: Request, etag: str) -> bool:
    """Whether the client says that it has this very content."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in given.split(","))
