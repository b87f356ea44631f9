# SPDX-License-Identifier: BSD-3-Clause
"""What a hub with N notebook servers costs: released batchspawner + wrapspawner, and ours.

    python -m benchmarks.spawner [--quick] [--json FILE] [--chart FILE]

Each class set runs in a sandbox of its own, one after the other, with the same mock Torque, the
same stub jobs and the same questions. benchmarks/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import report, sandbox, stub
from benchmarks.cluster import Cluster
from benchmarks.hub import CLASS_SETS, Hub

MODULE = "benchmarks.spawner"
STEP = 100
"""Most servers that are started at once: JupyterHub's own limit."""
SETTLE = 3.0  # seconds between the last start and a window


@dataclass(frozen=True)
class Plan:
    """How much is measured. Times in seconds."""

    sizes: tuple[int, ...]
    sizes_ours: tuple[int, ...]  # these are for ours only
    restart_at: int
    window: float
    singles: int
    pending: tuple[int, ...]
    pending_window: float
    poll_interval: int
    limit: float  # of each sandbox


FULL = Plan((1, 10, 50, 100, 200), (500,), 200, 30.0, 5, (5, 40), 20.0, 30, 1800.0)
QUICK = Plan((1, 10), (), 10, 4.0, 2, (2, 5), 4.0, 2, 300.0)


class Run:
    """One class set in its sandbox."""

    def __init__(self, root: Path, name: str, plan: Plan) -> None:
        self.plan = plan
        self.sizes = plan.sizes + (plan.sizes_ours if name == "ours" else ())
        most = max(*self.sizes, *plan.pending)
        self.users = [f"r{number:03d}" for number in range(most)]
        self.single = "single"
        sandbox.add_accounts(root, [*self.users, self.single])
        self.cluster = Cluster(root / "cluster", slots=most + 1)
        self.hub = Hub(
            root / "hub", CLASS_SETS[name], self.cluster, root / "homes", plan.poll_interval
        )

    async def start(self) -> None:
        """Queue, stub and hub, with all users known."""
        self.cluster.start()
        await asyncio.create_subprocess_exec(sys.executable, "-m", stub.__name__)
        await self.hub.start()
        await self.hub.add_users([*self.users, self.single])

    async def running(self) -> dict[str, Any]:
        """Everything that is measured with running servers."""
        result: dict[str, Any] = {"sizes": {}, "bursts": {}, "singles": {}}
        running = 0
        for size in self.sizes:
            while running < size:
                count = min(size - running, STEP)
                users = self.users[running : running + count]
                result["bursts"][f"{running}+{count}"] = await self._burst(users)
                running += count
            print(f"  {size} running", file=sys.stderr, flush=True)
            await asyncio.sleep(SETTLE)
            result["sizes"][size] = await self._window(self.plan.window)
            result["singles"][size] = await self._singles()
            if size == self.plan.restart_at:
                result["restart"] = await self._restart(size)
        return result

    async def pending(self) -> dict[str, Any]:
        """The same window, while jobs wait in the queue."""
        self.cluster.delay(86400)
        result: dict[str, Any] = {}
        waiting: list[asyncio.Task[float]] = []
        for size in self.plan.pending:
            new = self.users[len(waiting) : size]
            waiting += [asyncio.ensure_future(self.hub.start_server(user)) for user in new]
            while self.cluster.calls()["qsub"] < size:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            await asyncio.sleep(SETTLE)
            result[str(size)] = await self._window(self.plan.pending_window)
        # The hub is killed next; tornado would complain of each stream that breaks off.
        logging.getLogger("tornado.application").setLevel(logging.CRITICAL)
        for task in waiting:
            task.cancel()
        return result

    async def _burst(self, users: list[str]) -> dict[str, Any]:
        await self.hub.reading()  # forget earlier stalls
        latencies = await asyncio.gather(*(self.hub.start_server(user) for user in users))
        reading = await self.hub.reading()
        return {"latencies": latencies, "stalls": reading["stalls"]}

    async def _singles(self) -> dict[str, Any]:
        await self.hub.reading()
        latencies = []
        for _ in range(self.plan.singles):
            latencies.append(await self.hub.start_server(self.single))
            await self.hub.stop_server(self.single)
        return {"latencies": latencies, "stalls": (await self.hub.reading())["stalls"]}

    async def _window(self, seconds: float) -> dict[str, Any]:
        """Readings over a time in which nothing is asked of the hub."""
        before, idle = await self.hub.reading(), _idle()
        await asyncio.sleep(seconds)
        after, idle = await self.hub.reading(), _idle() - idle
        minutes = (after["time"] - before["time"]) / 60
        calls = after["calls"] - before["calls"]
        calls["sh"] = after["started"].get("sh", 0) - before["started"].get("sh", 0)
        return {
            "calls": {name: round(count / minutes, 1) for name, count in sorted(calls.items())},
            "child_cpu": (after["child_cpu"] - before["child_cpu"]) / minutes,
            "hub_cpu": (after["cpu"] - before["cpu"]) / minutes,
            "stalls": after["stalls"],
            "rss_mib": after["rss_mib"],
            "idle": idle / seconds / (os.cpu_count() or 1),
            "load": os.getloadavg()[0],
        }

    async def _restart(self, size: int) -> dict[str, Any]:
        """Kill the hub and start it again; until it answers, and until all servers are ready."""
        self.hub.kill()
        begun = time.perf_counter()
        answers = await self.hub.start()
        while (reading := await self.hub.reading())["adopted"] is None:
            if time.perf_counter() - begun > self.plan.limit / 4:
                raise SystemExit("The restarted hub does not find its servers again.")
            await asyncio.sleep(0.2)
        return {
            "servers": size,
            "answers": answers,
            "adoption": reading["adopted"],
            "stalls": reading["stalls"],
        }


def _idle() -> float:
    """Seconds that the processors of this machine were idle since it began."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[4]) / os.sysconf("SC_CLK_TCK")


async def _measure(root: Path, name: str, part: str, plan: Plan) -> dict[str, Any]:
    run = Run(root, name, plan)
    await run.start()
    result: dict[str, Any] = await (run.running() if part == "running" else run.pending())
    run.hub.kill()
    return result


def _inside(name: str, part: str, plan: Plan, out: Path) -> None:
    root = sandbox.prepare()
    out.write_text(json.dumps(asyncio.run(_measure(root, name, part, plan))))


def _outside(plan: Plan, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Both class sets, both parts."""
    results: dict[str, Any] = {
        "plan": asdict(plan),
        "machine": {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]},
    }
    for name in CLASS_SETS:
        results[name] = {}
        for part in ("running", "pending"):
            print(f"{name}, {part} …", file=sys.stderr, flush=True)
            out = folder / f"{name}-{part}.json"
            status = sandbox.run(MODULE, [*arguments, "--inside", name, part, str(out)], plan.limit)
            if status != 0:
                raise SystemExit(f"{name}, {part}: ended with {status}")
            results[name][part] = json.loads(out.read_text())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="N = 1 and 10: does it work at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the chart (PNG)")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    if options.inside:
        name, part, out = options.inside
        _inside(name, part, plan, Path(out))
        return
    with sandbox.folder() as folder:
        results = _outside(plan, ["--quick"] if options.quick else [], folder)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.table(results))
    if options.chart:
        from benchmarks import chart  # noqa: PLC0415 - only here is matplotlib needed

        chart.draw(results, options.chart)


if __name__ == "__main__":
    main()
