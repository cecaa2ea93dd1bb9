"""Gathers items that arrive at the same moment into batches, and works on one batch after the other in a thread."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from toolkit.serving.counters import Counters


class Batcher:
    """Calls `work` with up to `most` waiting items. The first of them waits up to `wait_seconds` for others.

    While `work` runs, the next items gather, so a busy server has large batches whatever `wait_seconds` is. As a
    context manager it ends when all submitted items are done.
    """

    def __init__(self, work: Callable[[Sequence], list], most: int, wait_seconds: float, counters: Counters):
        """`work`: items -> an answer for each, in their order."""
        self.work, self.most, self.wait_seconds, self.counters = work, most, wait_seconds, counters
        self._waiting: queue.SimpleQueue[tuple[object, Future] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def __enter__(self) -> "Batcher":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._waiting.put(None)
        self._thread.join()

    def submit(self, item) -> Future:
        """A future with the answer to this item, or the error of `work`."""
        future = Future()
        self._waiting.put((item, future))
        return future

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            gathered, is_last = self._gather(first)
            # Without items whose clients have given up.
            if batch := [(item, future) for item, future in gathered if future.set_running_or_notify_cancel()]:
                self._answer(batch)
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
        answers = answer_each(self.work, [item for item, _ in batch])
        self.counters.add_batch(sum(not isinstance(answer, Exception) for answer in answers))
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)


def answer_each(work: Callable[[Sequence], list], items: list) -> list:
    """The answers of `work` to all items; an item that fails gets its exception as the answer.

    If a batch fails, each half is tried alone, so that one bad item does not spoil the others.
    """
    try:
        return work(items)
    except Exception as error:
        if len(items) == 1:
            return [error]
        half = len(items) // 2
        return answer_each(work, items[:half]) + answer_each(work, items[half:])
