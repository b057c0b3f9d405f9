"""What every peer's process shares: arguments, the clock, and the one JSON line it prints."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from networks import NETWORKS, Network

# Different batches that are held in memory and taken in turn.
POOL = 8
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Job:
    network_name: str
    mode: str
    batch: int
    threads: int
    seconds: float
    variant: str
    model_file: Path | None

    @property
    def network(self) -> Network:
        return NETWORKS[self.network_name]


def job() -> Job:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=list(NETWORKS), required=True)
    parser.add_argument("--mode", choices=["train", "infer", "export"], required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="0: one step")
    parser.add_argument("--variant", default="")
    parser.add_argument("--model-file", type=Path)
    a = parser.parse_args()
    return Job(a.network, a.mode, a.batch, a.threads, a.seconds, a.variant, a.model_file)


class Clock:
    """Call `tick` after every step; it says whether to go on. Warm-up steps are not counted."""

    def __init__(self, seconds: float) -> None:
        # The parent's time right before it started this process.
        self._started = float(os.environ.get("PEER_STARTED", time.time()))
        self._seconds = seconds
        self._warm_up_left = WARM_UP_STEPS
        self._steps: list[float] = []
        self._begin = self._timed_from = self._last = 0.0
        self.first_step_seconds = 0.0

    def tick(self) -> bool:
        now = time.perf_counter()
        if not self.first_step_seconds:
            self.first_step_seconds = time.time() - self._started
            self._begin = now
        elif self._warm_up_left > 0 or now - self._begin < min(self._seconds, 1.0) and not self._steps:
            self._warm_up_left -= 1
            self._timed_from = now
        else:
            self._steps.append(now - self._last)
        self._last = now
        if self._seconds == 0:
            return False
        return len(self._steps) < WARM_UP_STEPS or now - self._timed_from < self._seconds

    def report(self, job: Job, parameters: int | None, import_rss_mb: float) -> None:
        median = statistics.median(self._steps) if self._steps else None
        result = {
            "first_step_seconds": self.first_step_seconds,
            "steps": len(self._steps),
            "ms_median": median and median * 1e3,
            "images_per_second": median and job.batch / median,
            "peak_rss_mb": memory_mb("VmHWM"),
            "import_rss_mb": import_rss_mb,
            "parameters": parameters,
        }
        print(json.dumps(result))


def memory_mb(key: str) -> float:
    """`VmRSS` (now) or `VmHWM` (peak) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {key}")
