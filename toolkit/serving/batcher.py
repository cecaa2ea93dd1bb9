"""Work that many ask for at the same moment, done for all of them at once, in one thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from toolkit.serving.counters import Counters


class Batcher:
    """Calls `work` with what waits: up to `most` items, the first of which has waited up to `wait_seconds` for others.

    While `work` runs, the next items gather, so a busy server has large batches whatever `wait_seconds` is. As a
    context manager it ends when all that was submitted is done.
    """

    def __init__(self, work: Callable[[Sequence], list], most: int, wait_seconds: float, counters: Counters):
        """`work`: items -> an answer for each, in their order."""
        self.work, self.most, self.wait_seconds, self.counters = work, most, wait_seconds, counters
        self.failed = False  # whether the last call of `work` with one item raised
        self._waiting: queue.SimpleQueue[tuple[object, Future] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._waiting.put(None)
        self._thread.join()

    def submit(self, item) -> Future:
        """The answer on this item, or the error of `work`."""
        future = Future()
        self._waiting.put((item, future))
        return future

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, is_last = self._gather(first)
            # Not those of clients that have given up.
            self._answer([(item, future) for item, future in batch if future.set_running_or_notify_cancel()])
            if is_last:
                return

    def _gather(self, first: tuple[object, Future]) -> tuple[list[tuple[object, Future]], bool]:
        """A batch that begins with `first`; whether it is the last one."""
        batch, until = [first], time.monotonic() + self.wait_seconds
        while len(batch) < self.most:
            try:
                item = self._waiting.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
        return batch, False

    def _answer(self, batch: list[tuple[object, Future]]) -> None:
        """Answer them together; where that fails, each half alone: what one item breaks the others shall not feel."""
        if not batch:
            return
        try:
            answers = self.work([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1:
                self._answer(batch[: len(batch) // 2])
                self._answer(batch[len(batch) // 2 :])
                return
            self.failed = True
            batch[0][1].set_exception(error)
            return
        self.failed = False
        self.counters.add_batch(len(batch))
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
