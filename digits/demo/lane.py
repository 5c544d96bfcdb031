"""What pictures pass on their way to a reader, so that many of them neither take the memory nor block each other."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.requests import ClientDisconnect, Request

from digits.demo.limits import MAX_QUEUED, MAX_SECONDS, MAX_SENDING, MAX_WAITING, PATIENCE
from digits.demo.reader_process import PictureFailedError, ReaderProcess
from digits.errors import DigitsError

BUSY = "The server is busy. Please try again."


class RefusedError(Exception):
    """A request that is not served: the status of the answer, and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Lane:
    """The readers for pictures of one kind, the memory for those that wait, and who waits.

    Args:
        readers: each reads one picture at a time.
        room: bytes of pictures that are held at once.
    """

    def __init__(self, readers: Sequence[ReaderProcess], room: int) -> None:
        self._idle: asyncio.Queue[ReaderProcess] = asyncio.Queue()
        for reader in readers:
            self._idle.put_nowait(reader)
        self._free = room
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()  # who came first is given room first
        self._sending: dict[asyncio.Timeout, float] = {}  # since when, by the loop's clock
        self._unsent = 0  # pictures that wait for room
        self._unread = 0  # pictures that wait for a reader

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Room for ``size`` bytes, once there is some.

        Raises:
            RefusedError: too many are waiting, or it took too long.
        """
        if self._unsent + self._unread >= MAX_WAITING:
            raise RefusedError(503, BUSY)
        self._unsent += 1
        try:
            async with asyncio.timeout(MAX_QUEUED), self._turn:
                while self._free < size:
                    self._freed.clear()
                    try:
                        await asyncio.wait_for(self._freed.wait(), PATIENCE)
                    except TimeoutError:
                        self._cut_off_the_slow()
                self._free -= size
        except TimeoutError as error:
            raise RefusedError(503, BUSY) from error
        finally:
            self._unsent -= 1
        try:
            yield
        finally:
            self._free += size
            self._freed.set()

    def _cut_off_the_slow(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit, since in self._sending.items():
            if now - since > PATIENCE:
                limit.reschedule(now)

    async def receive(self, request: Request, size: int) -> bytearray:
        """The body of ``request``, at most ``size`` bytes.

        Raises:
            RefusedError: it is longer, or did not arrive in time, or not at all.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(MAX_SENDING) as limit:
                self._sending[limit] = asyncio.get_running_loop().time()
                try:
                    async for chunk in request.stream():
                        if len(body) + len(chunk) > size:
                            raise RefusedError(413, "This file is too large.")
                        body += chunk
                finally:
                    del self._sending[limit]
        except TimeoutError as error:
            raise RefusedError(408, "This file took too long to arrive.") from error
        except ClientDisconnect as error:
            raise RefusedError(400, "This file did not arrive whole.") from error
        return body

    async def read(self, request: Request, content: bytearray, why: str = "") -> bytes:
        """What a reader says of the picture ``content``; ``why`` is as :func:`digits.demo.answer.answer` takes it.

        Raises:
            RefusedError: it took too long, too many are waiting, or nobody waits for the answer any more.
        """
        self._unread += 1
        try:
            async with asyncio.timeout(MAX_QUEUED):
                reader = await self._idle.get()
        except TimeoutError as error:
            raise RefusedError(503, BUSY) from error
        finally:
            self._unread -= 1
        try:
            if await request.is_disconnected():
                raise RefusedError(400, "The visitor is gone.")
            await asyncio.to_thread(reader.start)
            return await self._read_in_time(reader, content, why)
        except (PictureFailedError, DigitsError) as error:
            raise RefusedError(422, str(error)) from error
        finally:
            self._idle.put_nowait(reader)

    async def _read_in_time(self, reader: ReaderProcess, content: bytearray, why: str) -> bytes:
        loop = asyncio.get_running_loop()
        start = loop.time()
        reading = asyncio.ensure_future(asyncio.to_thread(reader.read, content, why))
        try:
            while not (await asyncio.wait([reading], timeout=0.1))[0]:
                if loop.time() - start > (PATIENCE if self._unread else MAX_SECONDS):
                    reader.kill()
                    with suppress(PictureFailedError):
                        await reading
                    raise RefusedError(422, "This picture takes too long to read; a smaller one may do.")
        except asyncio.CancelledError:  # the server ends, and must not wait for the thread
            reader.kill()
            raise
        return reading.result()
