"""Many ask at the same moment, and are answered together."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolkit.serving.batcher import Batcher
from toolkit.serving.counters import Counters


def test_what_waits_is_answered_together_and_each_gets_its_own_answer():
    batches, counters = [], Counters()

    def work(items):
        batches.append(len(items))
        time.sleep(0.005)
        return [10 * item for item in items]

    with Batcher(work, 8, 0.0, counters) as batcher, ThreadPoolExecutor(4) as clients:
        futures = list(clients.map(batcher.submit, range(100)))
        assert [future.result(10) for future in futures] == list(range(0, 1000, 10))
    assert sum(batches) == counters.photographs == 100 and max(batches) == 8
    assert len(batches) == counters.batches < 30


def test_the_first_waits_for_others_but_no_longer_than_it_may():
    with Batcher(lambda items: [len(items)] * len(items), 2, 5.0, Counters()) as batcher:
        first, second = batcher.submit(0), batcher.submit(1)
        assert (first.result(1), second.result(1)) == (2, 2)  # full, so it does not wait
    with Batcher(lambda items: [len(items)] * len(items), 2, 0.01, Counters()) as batcher:
        assert batcher.submit(0).result(1) == 1


def test_what_breaks_on_one_answers_the_others():
    def work(items):
        if 3 in items:
            raise MemoryError("too large")
        return items

    with Batcher(work, 8, 1.0, Counters()) as batcher:
        futures = [batcher.submit(item) for item in range(8)]
        with pytest.raises(MemoryError, match="too large"):
            futures[3].result(10)
        assert [future.result(10) for future in futures if future is not futures[3]] == [0, 1, 2, 4, 5, 6, 7]


def test_what_nobody_waits_for_is_left_out_and_the_end_waits_for_all_others():
    is_free, seen = threading.Event(), []

    def work(items):
        is_free.wait(10)
        seen.extend(items)
        return items

    with Batcher(work, 1, 0.0, Counters()) as batcher:
        futures = [batcher.submit(item) for item in range(4)]
        assert futures[2].cancel()
        is_free.set()
    assert seen == [0, 1, 3] and all(future.done() for future in futures)
