# SPDX-License-Identifier: BSD-3-Clause
"""The chart of benchmarks/spawner.py for the README: what grows with the users, and what not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import report

COLOURS = {"stock": "#9a9a9a", "ours": "#d1650f"}
NAMES = {"stock": "batchspawner + wrapspawner", "ours": "Ganymede"}
SIZE = (9.6, 3.2)  # inches


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw three panels over the number of running servers, and a burst."""
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=SIZE, layout="constrained")
    panels = figure.subplots(1, 3)
    _lines(panels[0], results, "Queue queries a minute", report.queries)
    _lines(
        panels[1], results, "CPU of the queue's commands, s/min",
        lambda window: float(window["child_cpu"]),
    )  # fmt: skip
    _burst(panels[2], results)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=200)


def _lines(
    axes: Axes, results: dict[str, Any], title: str, value: Callable[[report.Result], float]
) -> None:
    for name, colour in COLOURS.items():
        windows = results[name]["running"]["sizes"]
        sizes = [int(size) for size in windows]
        axes.plot(
            sizes, [value(windows[size]) for size in windows],
            color=colour, marker="o", markersize=4, label=NAMES[name],
        )  # fmt: skip
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel("running notebook servers")
    axes.set_ylim(bottom=0)


def _burst(axes: Axes, results: dict[str, Any]) -> None:
    """How many of a burst have started after some seconds."""
    key = report.burst(results)
    for name, colour in COLOURS.items():
        latencies = sorted(results[name]["running"]["bursts"][key]["latencies"])
        shares = [100 * number / len(latencies) for number in range(1, len(latencies) + 1)]
        axes.step([0.0, *latencies], [0.0, *shares], color=colour, where="post")
    before, _, count = key.partition("+")
    axes.set_title(f"{count} started at once beside {before}: % ready", loc="left", fontsize=9)
    axes.set_xlabel("seconds since the click")
    axes.set_ylim(0, 100)
