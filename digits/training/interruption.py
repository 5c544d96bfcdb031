"""Ctrl-C, and the signals by which systems end a process: it ends where nothing is lost; at the second one, at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

# Of Windows only the first two. SIGHUP comes when a terminal is closed or a connection to it is lost.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(BaseException):
    """A signal has ended the run; no Exception, so that nothing takes it for a failure that it could handle."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number  # as shells report it


class Interruption:
    """While it is entered, a signal raises :class:`Interrupted`: at once, or where :meth:`raise_if_asked` is called.

    The second way is that of a training, which is only to stop between two steps; see :attr:`deferred`. A second signal
    ends the process at once. Outside the main thread, which alone handles signals, nothing changes. A signal that is
    ignored, as `nohup` ignores SIGHUP, stays ignored.

    Libraries have an ``except:`` here and there, mostly while they are imported, which may swallow what was raised at
    once. Entering another one raises it again.

    Args:
        end: is called with the number of a signal before Interrupted is raised at once, and may end the process.
    """

    def __init__(self, end: Callable[[int], None] | None = None) -> None:
        self._end = end
        self.deferred = False  # whether to wait for raise_if_asked
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN}
            for outer in (getattr(handler, "__self__", None) for handler in before.values()):
                if isinstance(outer, Interruption):
                    outer.raise_if_asked()
            self._before = before
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals, from Lightning too: its handler of SIGTERM stops between steps that belong together."""
        for number in self._before:
            signal.signal(number, self._receive)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    @property
    def number(self) -> int:
        """That of the signal that has come; 0 if none has."""
        return self._number or 0

    def ask(self, number: int) -> None:
        """Take it as if the signal of this number had come, as it has to another process of the run."""
        self._number = number

    def raise_if_asked(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    def _receive(self, number: int, _: Any) -> None:
        if self._number is not None:
            os._exit(128 + number)  # nothing is cleaned up: checkpoints are whole at any moment
        self._number = number
        if not self.deferred:
            if self._end is not None:
                self._end(number)
            raise Interrupted(number)
