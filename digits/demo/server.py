"""The server of the page: Gradio's own routes as far as the page needs them, and one that takes pictures.

Starlette, FastAPI and uvicorn are what Gradio itself is made of, and come with it.
"""

import asyncio
import contextlib
import ipaddress
import json
import os
import re
from collections.abc import Iterable

import gradio
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from digits.demo.component import TITLE, component_arguments
from digits.demo.lane import Lane, RefusedError
from digits.demo.limits import LARGE_ROOM, MAX_FILE_BYTES, PATIENCE, SMALL_BYTES, SMALL_ROOM
from digits.demo.reader_process import LARGE, ReaderProcess

READ = "/read"  # takes a picture, and is this server's own
WHYS = frozenset(["", *"0123456789"])
PAGES = frozenset({"/", "/theme.css", "/favicon.ico"})  # and these, with GET, are Gradio's
FOLDERS = ("/assets/", "/static/")
HOST = re.compile(r"(?:\[(?P<address>[\da-f:.]+)\]|(?P<name>[^:\[\]]+))(?::\d+)?")
# What Gradio is told of a request. Others, X-Forwarded-Host for one, would decide what is on the page.
HEADERS = frozenset({b"host", b"accept", b"accept-encoding", b"if-none-match", b"x-forwarded-proto"})


class Server:
    """The ASGI application that stands between Gradio's and the network.

    Args:
        page: Gradio's.
        small: for drawings.
        large: for photos.
        names: by which the server may be asked for, beside IP addresses and localhost.
    """

    def __init__(self, page: ASGIApp, small: Lane, large: Lane, names: Iterable[str]) -> None:
        self._page = page
        self._small = small
        self._large = large
        self._names = {"localhost"} | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and nothing that is none: no web sockets."""
        if scope["type"] == "http":
            try:
                await self._route(scope, receive, send)
            except RefusedError as error:
                await PlainTextResponse(f"{error}\n", error.status)(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_host([value for name, value in scope["headers"] if name == b"host"])
        path, method = scope["path"], scope["method"]
        if path == READ:
            if method != "POST":
                raise RefusedError(405, "Only POST.")
            body = _Body(receive)
            try:
                response = await self._read(Request(scope, body))
            except RefusedError as error:
                await body.drop_rest()
                refusal = json.dumps({"message": str(error), "opened": False})
                response = Response(refusal, error.status, media_type="application/json")
            await response(scope, body, send)
        elif path in PAGES or path.startswith(FOLDERS):
            if method not in ("GET", "HEAD"):
                raise RefusedError(405, "Only GET.")
            headers = [(name, value) for name, value in scope["headers"] if name in HEADERS]
            await self._page({**scope, "headers": headers, "query_string": b""}, _without_body(receive), send)
        else:
            raise RefusedError(404, "Not found.")

    def _check_host(self, values: list[bytes]) -> None:
        """Refuse names that were not given: a page elsewhere may have pointed a name of its own at this machine."""
        host = HOST.fullmatch(values[0].decode("latin-1").lower() if len(values) == 1 else "")
        name = host["address"] or host["name"] if host else ""
        if name.removesuffix(".") in self._names:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError as error:
            raise RefusedError(421, "Not this server's name; digits demo --host NAME allows it.") from error

    async def _read(self, request: Request) -> Response:
        if request.headers.get("sec-fetch-site") == "cross-site":
            raise RefusedError(403, "Not from other sites.")
        length = request.headers.get("content-length", str(MAX_FILE_BYTES))
        if not length.isdecimal() or int(length) > MAX_FILE_BYTES:
            raise RefusedError(413, f"This file is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
        why = request.query_params.get("why", "")  # a digit, if it is asked which ink speaks for it
        if why not in WHYS:
            raise RefusedError(400, "No digit.")
        size = int(length)
        lane = self._small if size <= SMALL_BYTES else self._large
        async with lane.hold(size):
            content = await lane.receive(request, size)
            answer = await lane.read(request, content, why)
            if answer == LARGE:
                answer = await self._large.read(request, content, why)
        return Response(answer, media_type="application/json")


class _Body:
    """What a client sends, of which the rest can be dropped."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def __call__(self) -> Message:
        message = await self._receive()
        self._more = message.get("more_body", False)
        return message

    async def drop_rest(self) -> None:
        """Wait for the end: many clients look for an answer only when they have sent everything."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._more:
                    await self()


def _without_body(receive: Receive) -> Receive:
    """``receive`` for an application that is to get no body, whatever is sent."""
    begun = False

    async def receive_nothing() -> Message:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return receive_nothing


def build_app(small: list[ReaderProcess], large: list[ReaderProcess], names: Iterable[str]) -> Server:
    """The server's application.

    Args:
        small: the readers of drawings.
        large: the readers of photos.
        names: by which the server may be asked for.
    """
    space = [host for host in os.environ.get("SPACE_HOST", "").split(",") if host]
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.HTML(**component_arguments(), most_bytes=MAX_FILE_BYTES)
    system = ("system-ui", "sans-serif")  # Gradio's default fonts are downloaded from Google
    app = gradio.mount_gradio_app(
        FastAPI(),
        page,
        "/",
        root_path=f"https://{space[0]}" if space else os.environ.get("GRADIO_ROOT_PATH"),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=gradio.themes.Default(font=system, font_mono=("ui-monospace", "monospace")),
        css=".gradio-container > .main { padding: 1rem 0.25rem !important; }",  # a phone has no room for more
    )
    return Server(app, Lane(small, SMALL_ROOM), Lane(large, LARGE_ROOM), [*names, *space])
