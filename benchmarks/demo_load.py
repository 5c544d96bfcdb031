"""How long the visitors of the page wait for an answer when there are many, and what memory their pictures take.

    python benchmarks/demo_load.py       5 minutes on two cores; the clients use the same machine

A real `digits demo` is asked by HTTP as the page asks it. Each client sends a drawing of two to four digits, waits for
the answer and sends the next, without a pause, on a connection of its own. Then one client sends pictures that take as
long as they may, while others draw. At last 1 and then 20 clients send a picture of 20 MB at once; memory is the
proportional set size of all processes of the server, sampled 20 times a second.
"""

import argparse
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from digits.data.mnist import load_mnist5k
from digits.demo.limits import MAX_FILE_BYTES

ROOT = Path(__file__).resolve().parent.parent
CANVAS = (800, 600)  # pixels of the drawing that the page sends
MB = 1e6


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 20, 50], metavar="N", help="default: 1 20 50")
    parser.add_argument("--seconds", type=float, default=60, help="for each number of clients (default: 60)")
    options = parser.parse_args()
    small, photo, slow = drawings(), large_picture(), slow_picture()
    for clients in options.clients:
        with server() as (_, port):
            print(f"{clients:2} clients: {draw(port, small, clients, options.seconds)}", flush=True)
    with server() as (_, port), slow_clients(port, slow, 2):
        print(f"5 clients beside two with slow pictures: {draw(port, small, 5, options.seconds)}", flush=True)
    for clients in (1, 20):
        with server() as (pid, port):
            before = memory(pid)
            peak, times = send_at_once(pid, port, photo, clients)
            print(
                f"{clients:2} clients with {len(photo) / MB:.1f} MB each: {peak / MB:.0f} MB at the peak, "
                f"{before / MB:.0f} MB before; {times}",
                flush=True,
            )


@dataclass
class Times:
    """Seconds from question to answer, and the errors."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def ask(self, connection: http.client.HTTPConnection, picture: bytes) -> None:
        """Send ``picture`` as the page does, and note the time."""
        start = time.perf_counter()
        try:
            connection.request("POST", "/read", picture)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200 or not answer["opened"]:
                self.errors.append(f"{response.status} {answer['message']}")
                return
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            self.errors.append(repr(error))
            return
        self.seconds.append(time.perf_counter() - start)

    def __str__(self) -> str:
        figures = "no answers"
        if self.seconds:
            p95 = statistics.quantiles(self.seconds, n=20)[-1] if len(self.seconds) > 1 else self.seconds[0]
            figures = (
                f"{len(self.seconds)} answers, median {statistics.median(self.seconds) * 1000:.0f} ms, 95th percentile "
                f"{p95 * 1000:.0f} ms, longest {max(self.seconds) * 1000:.0f} ms"
            )
        return f"{figures}, {len(self.errors)} errors{''.join(f'; {error}' for error in sorted(set(self.errors))[:3])}"


def draw(port: int, pictures: Sequence[bytes], clients: int, seconds: float) -> Times:
    """What ``clients`` get that draw for so many seconds."""
    times = Times()
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for n in count(number):
            if time.perf_counter() > end:
                return
            times.ask(connection, pictures[n % len(pictures)])

    run_at_once(client, clients)
    return times


def send_at_once(pid: int, port: int, picture: bytes, clients: int) -> tuple[int, Times]:
    """The server's peak of memory in bytes, when each client sends ``picture`` once, and what they got."""
    times, peak, done = Times(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_at_once(lambda _: times.ask(http.client.HTTPConnection("127.0.0.1", port, timeout=120), picture), clients)
    done.set()
    watcher.join()
    return peak, times


@contextmanager
def slow_clients(port: int, picture: bytes, clients: int) -> Iterator[None]:
    """So many clients that send ``picture`` again and again meanwhile, whatever they are answered."""
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            Times().ask(connection, picture)
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()


def run_at_once(client: Callable[[int], None], clients: int) -> None:
    """Run so many of ``client``, each in a thread with its number, until all have ended."""
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def memory(pid: int) -> int:
    """The proportional set size of a process and all that it has started, in bytes."""
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


@contextmanager
def server() -> Iterator[tuple[int, int]]:
    """The process of a `digits demo`, and its port; it has read a picture."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "digits", "demo", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith(b"http"):
            sys.exit("demo_load.py: the server did not start")
        draw(port, drawings()[:1], 4, 1.0)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def drawings() -> list[bytes]:
    """Two to four digits on the page's canvas, as PNG: those that MNIST's writers wrote, black on white."""
    rng = np.random.default_rng(0)
    images = np.asarray(load_mnist5k().test_images)
    files = []
    for n in range(60):
        canvas = Image.new("RGBA", CANVAS, "white")
        for place in range(2 + n % 3):
            digit = Image.fromarray(255 - images[rng.integers(len(images))]).resize((180, 180))
            canvas.paste(digit, (30 + 190 * place, int(rng.integers(50, 350))))
        files.append(png(canvas))
    return files


def large_picture() -> bytes:
    """A picture of nearly as many bytes as the page takes: coloured noise."""
    side = int((MAX_FILE_BYTES / 3 * 0.98) ** 0.5)
    return png(Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)))


def slow_picture() -> bytes:
    """A small file that takes long: hundreds of digits, each of which is unclear."""
    rng = np.random.default_rng(0)
    images = np.asarray(load_mnist5k().test_images)
    page = np.full((1400, 1400), 255, np.uint8)
    for top in range(0, 1372, 30):
        for left in range(0, 1372, 30):
            image = 255 - images[rng.integers(len(images))]
            page[top : top + 28, left : left + 28] = np.roll(image, 9, axis=int(rng.integers(2)))
    return png(Image.fromarray(page))


def png(image: Image.Image) -> bytes:
    """``image`` as a file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
