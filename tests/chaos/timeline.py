# SPDX-License-Identifier: BSD-3-Clause
"""What happened, in order; what it excuses; what was judged."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.world import World

Server = tuple[str, str]
"""User and server name."""


class Timeline:
    """Events as JSON lines in a file; the latest are kept for excerpts. Safe for threads."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self._out = file.open("w", buffering=1)
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._latest: deque[dict[str, Any]] = deque(maxlen=4000)
        self.counts: Counter[tuple[str, str]] = Counter()

    def now(self) -> float:
        """Seconds since the run began."""
        return round(time.monotonic() - self._start, 2)

    def write(self, kind: str, **facts: Any) -> None:
        """Add an event."""
        event = {"t": self.now(), "kind": kind, **facts}
        with self._lock:
            self._latest.append(event)
            self._out.write(json.dumps(event, default=str) + "\n")

    def count(self, group: str, name: str) -> None:
        """Count something for the summary."""
        with self._lock:
            self.counts[group, name] += 1

    def excerpt(self, since: float, *words: str) -> list[str]:
        """Events after `since`: the faults, and what names one of `words`."""
        with self._lock:
            events = [event for event in self._latest if event["t"] >= since]
        lines = [json.dumps(event, default=str) for event in events]
        return [
            line
            for event, line in zip(events, lines, strict=True)
            if event["kind"] in {"fault", "healed", "calm", "storm"}
            or any(f'"{word}"' in line for word in words if word)
        ][-60:]


class Ledger:
    """What was broken when, what was asked for, and which ends of jobs are the run's own doing.

    Components are `hub`, `proxy`, `queue`, the nodes, and `disk`. Times are `time.monotonic()`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._broken: Counter[str] = Counter()
        self._healed: dict[str, float] = {}
        self._starts: dict[Server, list[float]] = defaultdict(list)
        self._stops: dict[Server, list[float]] = defaultdict(list)
        self._excuses: dict[str, str] = {}
        self._begun = time.monotonic()

    @contextmanager
    def broken(self, components: Iterable[str]) -> Iterator[None]:
        """Components count as broken within the block."""
        components = set(components)
        with self._lock:
            self._broken.update(components)
        try:
            yield
        finally:
            with self._lock:
                self._broken.subtract(components)
                self._healed.update(dict.fromkeys(components, time.monotonic()))

    def healthy(self, *components: str) -> float:
        """For how many seconds all of these have been whole; 0 while one is broken."""
        with self._lock:
            if any(self._broken[name] > 0 for name in components):
                return 0.0
            latest = max(self._healed.get(name, self._begun) for name in components)
        return time.monotonic() - latest

    def is_broken(self) -> list[str]:
        """The components that are broken now."""
        with self._lock:
            return sorted(name for name, count in self._broken.items() if count > 0)

    def ask_start(self, server: Server) -> None:
        """Somebody is about to ask for a server."""
        with self._lock:
            self._starts[server].append(time.time())

    def ask_stop(self, server: Server) -> None:
        """Somebody is about to ask for its end."""
        with self._lock:
            self._stops[server].append(time.time())

    def stop_asked(self, server: Server, submitted: float) -> bool:
        """Whether a stop was asked for after the start that made the job of that time (epoch).

        The stop may be older than the job: `qsub` takes its time.
        """
        with self._lock:
            begun = max((at for at in self._starts[server] if at <= submitted), default=0.0)
            return any(at >= begun for at in self._stops[server])

    def excuse(self, job_id: str, why: str) -> None:
        """This job may end: a fault or its owner ends it."""
        with self._lock:
            self._excuses.setdefault(job_id, why)

    def excuse_of(self, job_id: str) -> str:
        """Why this job may have ended, empty when there is no reason."""
        with self._lock:
            return self._excuses.get(job_id, "")


@dataclass
class Violation:
    """Something that must not be, with what led to it."""

    invariant: str
    subject: str
    text: str
    excerpt: list[str]


@dataclass
class Verdicts:
    """Counts what was checked, and keeps what was violated, once for each subject."""

    timeline: Timeline
    checked: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(
        self, invariant: str, holds: bool, subject: str, text: str, since: float | None = None
    ) -> None:
        """Count a check; one that does not hold is written down with the timeline since then."""
        with self._lock:
            self.checked[invariant] += 1
            known = any(v.invariant == invariant and v.subject == subject for v in self.violations)
            if holds or known:
                return
            self.timeline.write("VIOLATION", invariant=invariant, subject=subject, text=text)
            begun = self.timeline.now() - 120 if since is None else since - 30
            words = [word for word in subject.replace("/", " ").split() if word]
            excerpt = self.timeline.excerpt(begun, *words)
            self.violations.append(Violation(invariant, subject, text, excerpt))


@dataclass
class Scene:
    """What lives, faults and invariants share."""

    world: World
    timeline: Timeline
    ledger: Ledger
    verdicts: Verdicts
