# SPDX-License-Identifier: BSD-3-Clause
"""The table of benchmarks/spawner.py: stock, ours, ratio, and which goals are met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

QUERIES = ("qstat", "pbsnodes")
KINDS = ("sh", "sudo", "qstat", "pbsnodes", "qsub", "qdel")
RUNNING_QUERIES, PENDING_QUERIES = 12, 60  # a minute
CHILD_CPU_SHARE = 0.1
STALL = 50.0  # ms
BURST_SHARE = 0.5
ADOPTION = 1.0  # seconds

Result = dict[str, Any]


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def queries(window: Result) -> float:
    return sum(float(window["calls"].get(name, 0)) for name in QUERIES)


def processes(window: Result) -> float:
    return float(sum(window["calls"].values()))


def stall(measured: Result) -> float:
    """Longest stall of the event loop in ms, 0 when none was long enough to be kept."""
    return float(max((item["ms"] for item in measured["stalls"]), default=0.0))


def _kinds(window: Result) -> str:
    calls = window["calls"]
    return " ".join(f"{name} {calls[name]:.0f}" for name in KINDS if calls.get(name))


_WINDOW_ROWS: list[tuple[str, Callable[[Result], float], str]] = [
    ("queries a minute", queries, ".0f"),
    ("processes a minute", processes, ".0f"),
    ("commands' CPU, s/min", lambda window: float(window["child_cpu"]), ".2f"),
    ("hub's CPU, s/min", lambda window: float(window["hub_cpu"]), ".2f"),
    ("longest stall, ms", stall, ".0f"),
    ("hub's memory, MiB", lambda window: float(window["rss_mib"]), ".0f"),
]


def _row(
    what: str, where: str, stock: float | None, ours: float | None, form: str
) -> tuple[str, ...]:
    shown = ["-" if value is None else format(value, form) for value in (stock, ours)]
    ratio = "-" if not stock or ours is None else f"{ours / stock:.2f}"
    return what, where, *shown, ratio


def _windows(stock: Result, ours: Result, what: str) -> Iterator[tuple[str, ...]]:
    for size, window in ours.items():
        other = stock.get(size)
        for name, value, form in _WINDOW_ROWS:
            yield _row(name, f"{size} {what}", value(other) if other else None, value(window), form)
        shown = [_kinds(other) if other else "-", _kinds(window)]
        yield ("  by kind", f"{size} {what}", *shown, "")


def _latencies(stock: Result, ours: Result, what: str) -> Iterator[tuple[str, ...]]:
    for key, measured in ours.items():
        other = stock.get(key)
        for percent in (50, 95):
            yield _row(
                f"start, p{percent}, s", what.format(key),
                percentile(other["latencies"], percent) if other else None,
                percentile(measured["latencies"], percent), ".2f",
            )  # fmt: skip
        yield _row(
            "longest stall, ms", what.format(key), stall(other) if other else None,
            stall(measured), ".0f",
        )  # fmt: skip


def _rows(results: Result) -> Iterator[tuple[str, ...]]:
    stock, ours = results["stock"]["running"], results["ours"]["running"]
    yield from _windows(stock["sizes"], ours["sizes"], "running")
    yield from _windows(results["stock"]["pending"], results["ours"]["pending"], "pending")
    yield from _latencies(stock["singles"], ours["singles"], "single, {} running")
    yield from _latencies(stock["bursts"], ours["bursts"], "burst, {}")
    servers = f"restart, {ours['restart']['servers']} servers"
    for key, name in (("adoption", "all ready after, s"), ("answers", "hub answers after, s")):
        yield _row(name, servers, stock["restart"][key], ours["restart"][key], ".2f")


def burst(results: Result) -> str:
    """The key of the largest burst that both had, "running+started"."""
    bursts: Iterable[str] = results["stock"]["running"]["bursts"]
    return max(bursts, key=lambda key: [int(number) for number in reversed(key.split("+"))])


def goals(results: Result) -> list[tuple[str, bool, str]]:
    """Each goal, whether it is met, and the figures."""
    stock, ours = results["stock"]["running"], results["ours"]["running"]
    windows = [*ours["sizes"].values(), *results["ours"]["pending"].values()]
    most = str(max(map(int, stock["sizes"])))
    running = [queries(window) for window in ours["sizes"].values()]
    pending = [queries(window) for window in results["ours"]["pending"].values()]
    sudo = sum(window["calls"].get("sudo", 0) for window in windows)
    cpu = ours["sizes"][most]["child_cpu"] / stock["sizes"][most]["child_cpu"]
    measured = [*windows, *ours["bursts"].values(), *ours["singles"].values()]
    longest = max(stall(item) for item in measured)
    largest = burst(results)
    p95 = [percentile(run["bursts"][largest]["latencies"], 95) for run in (stock, ours)]
    p50 = [
        percentile([value for item in run["singles"].values() for value in item["latencies"]], 50)
        for run in (stock, {"singles": {k: ours["singles"][k] for k in stock["singles"]}})
    ]
    adoption = ours["restart"]["adoption"]
    return [
        ("queries a minute, all running: at most 12", max(running) <= RUNNING_QUERIES,
         f"{max(running):.0f}"),
        ("queries a minute, some pending: at most 60", max(pending) <= PENDING_QUERIES,
         f"{max(pending):.0f}"),
        ("no sudo for queries", sudo == 0, f"{sudo:.0f}"),
        (f"commands' CPU with {most} running: at most 10 % of stock", cpu <= CHILD_CPU_SHARE,
         f"{cpu:.1%}"),
        ("no stall above 50 ms", longest <= STALL, f"{longest:.0f} ms"),
        (f"burst {largest}: p95 at most half of stock", p95[1] <= BURST_SHARE * p95[0],
         f"{p95[1]:.2f} s, stock {p95[0]:.2f} s"),
        ("single start not slower than stock", p50[1] <= p50[0],
         f"median {p50[1]:.2f} s, stock {p50[0]:.2f} s"),
        (f"restart with {ours['restart']['servers']} servers: at most 1 s", adoption <= ADOPTION,
         f"{adoption:.2f} s"),
    ]  # fmt: skip


def table(results: Result) -> str:
    """Everything measured, the goals, and what stalled our event loop."""
    rows = [("", "", "stock", "ours", "ours/stock"), *_rows(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    lines += ["", "Goals"]
    lines += [f"{'met   ' if met else 'MISSED'}  {goal}: {shown}"
              for goal, met, shown in goals(results)]  # fmt: skip
    lines += ["", "Longest stalls of ours", *_stalls(results["ours"])]
    return "\n".join(lines)


def _stalls(ours: Result) -> Iterator[str]:
    running = ours["running"]
    parts = {
        **{f"{size} running": item for size, item in running["sizes"].items()},
        **{f"{size} pending": item for size, item in ours["pending"].items()},
        **{f"single at {size}": item for size, item in running["singles"].items()},
        **{f"burst {key}": item for key, item in running["bursts"].items()},
        "restart": running["restart"],
    }
    for where, item in parts.items():
        for worst in item["stalls"][:2]:
            causes = ", ".join(f"{name} {ms:.0f}" for name, ms in worst["causes"].items())
            yield (f"  {where}: {worst['ms']:.0f} ms, of which CPU {worst['cpu_ms']:.0f}: {causes}")
