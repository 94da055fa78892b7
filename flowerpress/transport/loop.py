"""A thread with an asyncio loop, and the connections that are written on it.

A connection costs some tasks there and no thread. What other threads want of one goes over in a
queue, and the loop is woken once for all that has gathered since it looked last.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flowerpress.transport.frames import BEAT
from flowerpress.transport.stream import Stream

T = TypeVar("T")
_FILES = 2  # threads for what waits for a disk


class LoopThread:
    """An asyncio loop in a thread of its own, from now on until `close`.

    Attributes
    ----------
    loop : asyncio.AbstractEventLoop
        The loop. Its default executor is for work that waits for a disk.
    """

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop
        self._ready, self._woken = threading.Event(), deque[Callable[[], None]]()
        self._ringing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.run(self._stay())

    async def _stay(self) -> None:
        self.loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self.loop.set_default_executor(ThreadPoolExecutor(_FILES, "link files"))
        self.loop.set_exception_handler(_complain)
        self._over = asyncio.Event()
        self._ready.set()
        await self._over.wait()

    @property
    def closed(self) -> bool:
        """Whether it has come to its end."""
        return self.loop.is_closed()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop, from another thread, and return what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def soon(self, work: Callable[[], None]) -> None:
        """Do something on the loop, from any thread; nothing once that is closed."""
        self._woken.append(work)
        if not self._ringing:
            self._ringing = True
            if threading.get_ident() == self._thread.ident:
                self.loop.call_soon(self._answer)
                return
            with contextlib.suppress(RuntimeError):  # it is closed
                self.loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._ringing = False  # first: what is added from here on rings again
        while self._woken:
            self._woken.popleft()()

    async def calm(self, seconds: float) -> None:
        """Wait until the tasks have ended that there are besides this one, at most so long."""
        others = asyncio.all_tasks() - {asyncio.current_task(), self._main}
        if others:
            await asyncio.wait(others, timeout=seconds)

    def close(self) -> None:
        """Cancel what is left, and wait for the thread's end."""
        self.soon(self._over.set)
        self._thread.join()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught on the loop.

    Where a process has two loops with gRPC, both are woken for each event, and one finds nothing.
    """
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


class LoopStream(Stream):
    """A connection that is written on a loop; see `Stream`.

    Attributes
    ----------
    on_change : callable
        Called on the loop once the other side was let in, and once the end was decided.
    """

    def __init__(
        self, heartbeat: float, loop: LoopThread, hang_up: Callable[[], object], address: str = ""
    ) -> None:
        super().__init__(heartbeat, hang_up, address)
        self._loop, self._idle = loop, asyncio.Event()
        self._seen = (False, False)
        self.on_change: Callable[[], None] = lambda: None

    def write(self, what: Any) -> None:
        """Send a frame, or several, after all that is to be sent already."""
        super().write(what)
        self._loop.soon(self._wake)

    def end(self, goodbye: bytes = b"") -> None:
        """Send no more than what is to be sent already, and a goodbye; then close."""
        super().end(goodbye)
        self._loop.soon(self._wake)

    def answer_beat(self) -> None:
        """Give a sign of life for one, where nothing else was sent for long: all is awake now."""
        if time.monotonic() - self.last_sent > self.heartbeat / 2 and self._out.empty():
            self.write(BEAT)

    def _wake(self) -> None:
        self._idle.set()
        now = (self.admitted, self.ending > 0)
        if now != self._seen:
            self._seen = now
            self.on_change()

    async def send_all(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what is to be written, until the end; `send` waits until there was room for it."""
        while True:
            try:
                item = self._out.get_nowait()
            except queue.Empty:
                self._idle.clear()
                if self._out.empty():
                    await self._idle.wait()
                continue
            if item is None:
                return
            for frame in self.each(item):
                await send(frame)
