"""A web page that reads drawings and pictures of digits; `digits demo` serves it, and so does a Hugging Face Space.

The page (page.html, page.css, page.js) is a single Gradio component. It sends a picture as a data URL, and the server
reads that from memory, so nothing that a visitor sends is ever written to a file.
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
from digits.reading.picture import open_image
from digits.reading.reader import Digit, Reader, text_lines

MAX_FILE_BYTES = 20_000_000
MAX_PIXELS = 16_000_000  # of a picture that is decoded at full size: keeps the server, torch included, below 1 GB
MAX_PIXELS_REDUCED = 50_000_000  # of a JPEG, which can be decoded at a reduced size
MAX_SHOWN_DIGITS = 30  # with image and probabilities; the text has all digits
IMAGE_SCALE = 4  # by which the images that the network saw are enlarged on the page
NO_DIGIT_FOUND = "No digit found."

Message = MutableMapping[str, Any]  # this and the next two are types of the ASGI protocol
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
        host: the address to listen on; by default Gradio's: GRADIO_SERVER_NAME, else 127.0.0.1.
        port: by default Gradio's: GRADIO_SERVER_PORT, else the first free one from 7860.
        model: as :class:`digits.Reader` takes it.
        open_browser: show the page in a browser on this machine.

    Raises:
        DigitsError: Gradio is not installed, the port is taken, or the model cannot be loaded.
        ConfigError: ``port`` is not a valid port number.
        KeyboardInterrupt: on Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="deepdigits-") as folder:
        # Gradio reads these when it is imported or started. They stop it from calling its makers' servers and from
        # keeping a history.
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        # Gradio checks that its own server answers, and would send that request through the proxy.
        local = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), host, "localhost", "127.0.0.1"]
        os.environ["no_proxy"] = ",".join(filter(None, local))
        try:
            import gradio
            from starlette.middleware import Middleware
        except ImportError as error:
            raise DigitsError("digits demo: Gradio is not installed; pip install -e '.[demo]'") from error
        if port is not None:
            _check_port(host or "127.0.0.1", port)
        page = _build_page(gradio, Reader(model))
        system = ("system-ui", "sans-serif")  # Gradio's default fonts are downloaded from Google
        _, address, _ = page.launch(
            server_name=f"[{host}]" if host and ":" in host else host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=MAX_FILE_BYTES,
            theme=gradio.themes.Default(font=system, font_mono=("ui-monospace", "monospace")),
            css=".gradio-container > .main { padding: 1rem 0.25rem !important; }",  # a phone has no room for more
            app_kwargs={"middleware": [Middleware(UploadFilter)]},
        )
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is removed
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def _check_port(host: str, port: int) -> None:
    """Check that ``port`` is free, as Gradio's own message would not help a user of `digits`."""
    if not 0 < port < 65536:
        raise ConfigError(f"--port {port}: is not between 1 and 65535")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise DigitsError(f"{host}:{port}: {error.strerror}; name another with --host or --port") from error


def _build_page(gradio: Any, reader: Reader) -> Any:
    """The page as Gradio Blocks."""
    lock = threading.Lock()  # one picture at a time, so that many visitors take no more memory than one

    def read(url: object) -> dict[str, object]:
        with lock:
            return read_url(reader, url)

    html, css, js = ((Path(__file__).parent / f"page.{suffix}").read_text("utf-8") for suffix in ("html", "css", "js"))
    with gradio.Blocks(title="DeepDigits", analytics_enabled=False) as page:
        gradio.HTML(
            html_template=html,
            css_template=css,
            apply_default_css=False,
            js_on_load=js,
            server_functions=[read],
            most_bytes=MAX_FILE_BYTES,
        )
    return page


def read_url(reader: Reader, url: object) -> dict[str, object]:
    """Read the picture in the data URL ``url``, which comes from a visitor and may be anything.

    Returns:
        ``message``: the digits, one line for each text line, or what went wrong; ``digits``: HTML that shows each
        digit; ``opened``: whether the picture could be opened.
    """
    try:
        try:
            content = base64.b64decode(str(url).partition(",")[2])
        except ValueError as error:
            raise DigitsError("This file did not arrive whole.") from error
        if len(content) > MAX_FILE_BYTES:
            raise DigitsError(f"This file is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
        file = io.BytesIO(content)
        file.name = "This file"  # how error messages refer to it
        _check_size(file)
        found = reader.read(file)
    except DigitsError as error:
        return {"message": str(error), "digits": "", "opened": False}
    if not found:
        return {"message": NO_DIGIT_FOUND, "digits": "", "opened": True}
    first = f", of the first {MAX_SHOWN_DIGITS}" if len(found) > MAX_SHOWN_DIGITS else ""
    head = f"<p>What the network saw, and how sure it is{first}:</p>"
    return {
        "message": "\n".join(text_lines(found)),
        "digits": "".join([head, *map(_digit_html, found[:MAX_SHOWN_DIGITS])]),
        "opened": True,
    }


def _check_size(file: io.BytesIO) -> None:
    """Refuse pictures that are too large for a shared server; the reader's own limit is for a machine of one's own."""
    try:
        with open_image(file) as picture:
            pixels = picture.width * picture.height
            full_size = picture.format not in ("JPEG", "MPO") or picture.info.get("progressive")
    except Image.DecompressionBombError as error:
        raise DigitsError("This picture has too many pixels.") from error
    except Exception:  # the reader will report what is wrong
        return
    limit = MAX_PIXELS if full_size else MAX_PIXELS_REDUCED
    if pixels > limit:
        raise DigitsError(
            f"This picture has {pixels / 1e6:.0f} million pixels; {limit // 1_000_000} million are the most."
        )


def _digit_html(digit: Digit) -> str:
    """HTML for one digit: the image that the network saw, and the ten probabilities."""
    rows = "".join(
        f'<tr{" class=best" if value == digit.value else ""}><th scope="row">{value}</th>'
        f'<td><div class="bar" style="width:{p:.1%}"></div></td><td>{_format_percent(p)}</td></tr>'
        for value, p in enumerate(digit.probabilities)
    )
    return (
        f"<figure><figcaption>{digit.value}</figcaption>"
        f'<img src="{_png_url(digit.image)}" alt="What the network saw of the {digit.value}">'
        f'<table aria-label="Probabilities of the ten digits">{rows}</table></figure>'
    )


def _format_percent(p: float) -> str:
    return "&gt;99.9 %" if 0.9995 <= p < 1 else "&lt;0.1 %" if 0 < p < 0.0005 else f"{100 * p:.1f} %"


def _png_url(image: NDArray[np.uint8]) -> str:
    """``image``, enlarged, as the data URL of a PNG."""
    file = io.BytesIO()
    Image.fromarray(np.kron(image, np.ones((IMAGE_SCALE, IMAGE_SCALE), np.uint8))).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class UploadFilter:
    """ASGI middleware that keeps uploads and large bodies from Gradio's routes, which would write them to files."""

    max_body_bytes = MAX_FILE_BYTES * 4 // 3 + 10_000  # the page sends JSON with the picture in base64: a third longer

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, but reject file uploads, and cut the connection after :attr:`max_body_bytes`."""
        headers = dict(scope.get("headers", ()))
        if headers.get(b"content-type", b"").lower().startswith(b"multipart/"):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body"})
            return
        left = self.max_body_bytes

        async def receive_limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        await self.app(scope, receive_limited, send)
