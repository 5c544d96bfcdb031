"""A web page that reads drawings and pictures of digits; `digits demo` serves it, and so does a Hugging Face Space.

The page (page/) is a single Gradio component. It sends a picture as the body of a request, the server holds that in
memory and hands it to a process that reads it: nothing that a visitor sends is ever in a file.
"""

import importlib.util
import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from digits.demo.limits import LARGE_READERS, SMALL_READERS
from digits.demo.reader_process import ReaderProcess, prepare
from digits.errors import ConfigError, DigitsError
from digits.settings.targets import CONF, config_dirs

FIRST_PORT, LAST_PORT = 7860, 7959  # Gradio's


def serve(
    hosts: Sequence[str] = (),
    port: int | None = None,
    model: str | Path | None = None,
    open_browser: bool = False,
) -> None:
    """Serve the page until Ctrl-C, and print its address once it is there.

    Args:
        hosts: the address to listen on, and further names by which the page may be asked for; by default Gradio's
            address: GRADIO_SERVER_NAME, else 127.0.0.1.
        port: by default Gradio's: GRADIO_SERVER_PORT, else the first free one from 7860.
        model: as :class:`digits.Reader` takes it.
        open_browser: show the page in a browser on this machine.

    Raises:
        DigitsError: Gradio is not installed, the port is taken, or the model cannot be loaded.
        ConfigError: ``port`` is not a valid port number.
        KeyboardInterrupt: on Ctrl-C.
    """
    names = [host.strip("[]") for host in hosts] or [os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1").strip("[]")]
    if importlib.util.find_spec("gradio") is None:
        raise DigitsError("digits demo: Gradio is not installed; pip install -e '.[demo]'")
    with _listen(names[0], port) as listener, tempfile.TemporaryDirectory(prefix="deepdigits-") as folder:
        # Gradio reads these when it is imported or started. They stop it from calling its makers' servers and from
        # keeping a history.
        os.environ |= {
            "GRADIO_TEMP_DIR": folder,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        prepare()  # before the imports, beside which it goes on
        import uvicorn

        from digits.demo.server import build_app

        own = [folder for folder in config_dirs() if folder != CONF]
        readers = [ReaderProcess(model, own, small=n < SMALL_READERS) for n in range(SMALL_READERS + LARGE_READERS)]
        try:
            for reader in readers:
                reader.start()
            app = build_app(readers[:SMALL_READERS], readers[SMALL_READERS:], names)
            shown = "localhost" if names[0] == "0.0.0.0" else f"[{names[0]}]" if ":" in names[0] else names[0]
            address = f"http://{shown}:{listener.getsockname()[1]}/"
            print(f"{address} (Ctrl-C ends it)", flush=True)
            if open_browser:
                webbrowser.open(address)
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is removed
            # Gradio's queue, which "lifespan" would start, is not used, and looks a thousand times a second for work.
            config = uvicorn.Config(
                app, lifespan="off", log_level="warning", limit_concurrency=1000, timeout_graceful_shutdown=1
            )
            uvicorn.Server(config).run([listener])
        finally:
            for reader in readers:
                reader.end()


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that takes connections, as uvicorn's own message would not help a user of `digits`."""
    if port is None and (given := os.environ.get("GRADIO_SERVER_PORT")):
        port = int(given) if given.isdecimal() else 0
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"--port {port}: is not between 1 and 65535")
    ports = range(FIRST_PORT, LAST_PORT + 1) if port is None else range(port, port + 1)
    for port in ports:
        try:
            listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            failure = DigitsError(f"{host}:{port}: {error.strerror}; name another with --host or --port")
        else:
            # connections inherit it; else the second part of an answer waits for the first one's receipt, for 40 ms
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
    raise failure
