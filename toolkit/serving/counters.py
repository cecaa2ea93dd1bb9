"""What a server has done so far, in Prometheus' text format."""

import bisect
import itertools
import threading
from collections import Counter

MEDIA_TYPE = "text/plain; version=0.0.4"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)  # seconds; of the histogram of latencies


class Counters:
    """Counts of requests, photographs and batches since the start. Any thread may add to them."""

    def __init__(self, predicts: bool = True):
        """`predicts`: False where other processes predict, so that batches are not known here."""
        self.predicts = predicts
        self.by_status, self.seconds = Counter(), 0.0
        self.by_duration = [0] * (len(BOUNDS) + 1)  # the last one is of those that took longer
        self.photographs = self.batches = 0
        self._lock = threading.Lock()

    def add_request(self, status: int, seconds: float) -> None:
        with self._lock:
            self.by_status[status] += 1
            self.seconds += seconds
            self.by_duration[bisect.bisect_left(BOUNDS, seconds)] += 1

    def add_batch(self, photographs: int) -> None:
        with self._lock:
            self.batches += 1
            self.photographs += photographs

    def text(self, under_way: int) -> str:
        """The page of /metrics; `under_way`: requests that are being answered."""
        with self._lock:
            totals = list(itertools.accumulate(self.by_duration))
            buckets = zip(map(str, (*BOUNDS, "+Inf")), totals, strict=True)
            batches = {"photographs_total counter": self.photographs, "batches_total counter": self.batches}
            samples = {
                "requests_total counter": {f'{{status="{key}"}}': n for key, n in sorted(self.by_status.items())},
                "requests_under_way gauge": {"": under_way},
                **({key: {"": n} for key, n in batches.items()} if self.predicts else {}),
                "request_seconds histogram": {
                    **{f'_bucket{{le="{bound}"}}': n for bound, n in buckets},
                    "_sum": round(self.seconds, 6),
                    "_count": totals[-1],
                },
            }
        lines = []
        for name, values in samples.items():
            lines.append(f"# TYPE serve_{name}")
            lines += [f"serve_{name.split()[0]}{suffix} {value}" for suffix, value in values.items()]
        return "\n".join([*lines, ""])
