"""A web page that reads what is drawn on it, and pictures; `digits demo` serves it, and so does a Space.

The page (page.html, page.css, page.js) is one component of Gradio. It sends a picture as a data URL, and the server
reads it from memory: nothing that a visitor sends is ever written to a file.
"""

import base64
import io
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digits.errors import ConfigError, DigitsError
from digits.reading.picture import opened
from digits.reading.reader import Digit, Reader, lines

MOST_BYTES = 20_000_000  # of a picture's file
MOST_PIXELS = 16_000_000  # of a picture, with which, and torch, the server stays below 1 GB of memory
MOST_PIXELS_CAMERA = 50_000_000  # of a JPEG that need not be decoded at its full size
MOST_SHOWN = 30  # digits with their probabilities; the answer has them all
ENLARGED = 4  # times, for the images that the network saw
BLANK = "No digit found."

Message = MutableMapping[str, Any]  # of ASGI, the protocol between web servers and Python
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def serve(
    host: str | None = None,
    port: int | None = None,
    model: str | Path | None = None,
    open_browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C, and print its address once it is there.

    Args:
        host: the address to listen on; by default that of Gradio: GRADIO_SERVER_NAME, else 127.0.0.1.
        port: by default that of Gradio: GRADIO_SERVER_PORT, else the first free one from 7860.
        model: as :class:`digits.Reader` takes it.
        open_browser: show the page in a browser on this machine.

    Raises:
        DigitsError: Gradio is not installed, the port is taken, or there is no such model.
        ConfigError: no port has that number.
        KeyboardInterrupt: on Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="deepdigits-") as folder:
        # Read when Gradio is imported, or at its start. It asks its makers' servers for nothing, and keeps no history.
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        # Gradio asks itself whether it is there, and takes the proxy for it.
        local = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), host, "localhost", "127.0.0.1"]
        os.environ["no_proxy"] = ",".join(filter(None, local))
        try:
            import gradio
            from starlette.middleware import Middleware
        except ImportError as error:
            raise DigitsError("digits demo: Gradio is not installed; pip install -e '.[demo]'") from error
        if port is not None:
            _check_free(host or "127.0.0.1", port)
        page = _page(gradio, Reader(model))
        system = ("system-ui", "sans-serif")  # Gradio's own fonts come from Google
        _, address, _ = page.launch(
            server_name=f"[{host}]" if host and ":" in host else host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=MOST_BYTES,
            theme=gradio.themes.Default(font=system, font_mono=("ui-monospace", "monospace")),
            css=".gradio-container > .main { padding: 1rem 0.25rem !important; }",  # more is too much for a phone
            app_kwargs={"middleware": [Middleware(OnlySmallJson)]},
        )
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is removed
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _check_free(host: str, port: int) -> None:
    """Gradio says of a taken port what a user of `digits` can do nothing with."""
    if not 0 < port < 65536:
        raise ConfigError(f"--port {port}: is not between 1 and 65535")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise DigitsError(f"{host}:{port}: {error.strerror}; name another with --host or --port") from error


def _page(gradio: Any, reader: Reader) -> Any:
    """The page as Gradio's Blocks."""
    one_at_a_time = threading.Lock()  # so that memory is needed for one picture, however many visitors there are

    def read(url: object) -> dict[str, object]:
        with one_at_a_time:
            return read_url(reader, url)

    html, css, js = ((Path(__file__).parent / f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js"))
    with gradio.Blocks(title="DeepDigits", analytics_enabled=False) as page:
        gradio.HTML(
            html_template=html,
            css_template=css,
            apply_default_css=False,
            js_on_load=js,
            server_functions=[read],
            most_bytes=MOST_BYTES,
        )
    return page


def read_url(reader: Reader, url: object) -> dict[str, object]:
    """Read the picture in ``url``, `data:…;base64,…`, which came from a visitor and can be anything.

    Returns:
        ``message``: the digits, a line for each row of them, or what is wrong; ``digits``: HTML that shows each;
        ``opened``: whether it is a picture at all.
    """
    try:
        try:
            content = base64.b64decode(str(url).partition(",")[2])
        except ValueError as error:
            raise DigitsError("This file did not arrive whole.") from error
        if len(content) > MOST_BYTES:
            raise DigitsError(f"This file is larger than {MOST_BYTES // 1_000_000} MB.")
        file = io.BytesIO(content)
        file.name = "This file"  # what errors call it
        _check_size(file)
        found = reader.read(file)
    except DigitsError as error:
        return {"message": str(error), "digits": "", "opened": False}
    if not found:
        return {"message": BLANK, "digits": "", "opened": True}
    first = f", of the first {MOST_SHOWN}" if len(found) > MOST_SHOWN else ""
    head = f"<p>What the network saw, and how sure it is{first}:</p>"
    return {
        "message": "\n".join(lines(found)),
        "digits": "".join([head, *map(_show, found[:MOST_SHOWN])]),
        "opened": True,
    }


def _check_size(file: io.BytesIO) -> None:
    """The reader's own limit is that of a machine which nobody else uses."""
    try:
        with opened(file) as picture:
            pixels = picture.width * picture.height
            whole = picture.format not in ("JPEG", "MPO") or picture.info.get("progressive")
    except Image.DecompressionBombError as error:
        raise DigitsError("This picture has too many pixels.") from error
    except Exception:  # what is wrong with it, the reader will say
        return
    most = MOST_PIXELS if whole else MOST_PIXELS_CAMERA
    if pixels > most:
        raise DigitsError(
            f"This picture has {pixels / 1e6:.0f} million pixels; {most // 1_000_000} million are the most."
        )


def _show(digit: Digit) -> str:
    """HTML of one digit: what the network saw, and the ten probabilities."""
    rows = "".join(
        f'<tr{" class=best" if value == digit.value else ""}><th scope="row">{value}</th>'
        f'<td><div class="bar" style="width:{p:.1%}"></div></td><td>{_percent(p)}</td></tr>'
        for value, p in enumerate(digit.probabilities)
    )
    return (
        f"<figure><figcaption>{digit.value}</figcaption>"
        f'<img src="{_png(digit.image)}" alt="What the network saw of the {digit.value}">'
        f'<table aria-label="Probabilities of the ten digits">{rows}</table></figure>'
    )


def _percent(p: float) -> str:
    return "&gt;99.9 %" if 0.9995 <= p < 1 else "&lt;0.1 %" if 0 < p < 0.0005 else f"{100 * p:.1f} %"


def _png(image: NDArray[np.uint8]) -> str:
    """``image`` as a data URL, each pixel a square."""
    file = io.BytesIO()
    Image.fromarray(np.kron(image, np.ones((ENLARGED, ENLARGED), np.uint8))).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class OnlySmallJson:
    """Stands before Gradio's routes: those that write what they are sent into files get nothing.

    The page sends JSON only; a picture in it is a third longer than its file.
    """

    most = MOST_BYTES * 4 // 3 + 10_000

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is a file's; of a longer body than :attr:`most` only the beginning."""
        headers = dict(scope.get("headers", ()))
        if headers.get(b"content-type", b"").lower().startswith(b"multipart/"):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body"})
            return
        left = self.most

        async def receive_some() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        await self.app(scope, receive_some, send)
