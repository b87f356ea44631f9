# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark of the spawners runs, counts, and leaves nothing. Its figures are not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from benchmarks import report, server

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run measured."""
    if os.geteuid() != 0:
        pytest.skip("the benchmark makes namespaces, and jobs of several accounts: run as root")
    path = tmp_path_factory.mktemp("benchmark") / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.spawner", "--quick", "--json", path],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Goals" in done.stdout
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_stock_asks_for_each_server_and_ours_for_all(results: dict[str, Any]) -> None:
    one, ten = (results["stock"]["running"]["sizes"][size]["calls"] for size in ("1", "10"))
    assert one["qstat"] > 0
    assert ten["qstat"] > 4 * one["qstat"]
    assert ten["sudo"] == ten["sh"] == ten["qstat"]
    ours = results["ours"]["running"]["sizes"]["10"]
    assert report.queries(ours) < ten["qstat"] / 4
    assert ours["calls"].get("sudo", 0) == ours["calls"].get("sh", 0) == 0


def test_every_start_was_measured(results: dict[str, Any]) -> None:
    for name in ("stock", "ours"):
        bursts = results[name]["running"]["bursts"]
        assert {key: len(burst["latencies"]) for key, burst in bursts.items()} == {
            "0+1": 1, "1+9": 9,
        }  # fmt: skip


def test_a_restarted_hub_finds_all_servers(results: dict[str, Any]) -> None:
    for name in ("stock", "ours"):
        assert results[name]["running"]["restart"]["servers"] == 10
        assert results[name]["running"]["restart"]["adoption"] > 0


def test_percentiles_are_values_that_occurred() -> None:
    assert report.percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert report.percentile([float(value) for value in range(1, 101)], 95) == 95.0
    assert report.percentile([7.0], 95) == 7.0


def test_a_missed_goal_is_called_missed(results: dict[str, Any]) -> None:
    worse = json.loads(json.dumps(results))
    worse["ours"]["running"]["sizes"]["10"]["calls"] = {"qstat": 13.0, "sudo": 1.0}
    missed = {goal for goal, met, _ in report.goals(worse) if not met}
    assert {"queries a minute, all running: at most 12", "no sudo for queries"} <= missed


def test_the_notebook_server_is_measured_with_the_role_s_own_configuration(tmp_path: Path) -> None:
    server.server_config(tmp_path)
    config: Any = Config()
    exec(  # noqa: S102 - our own template
        (tmp_path / "jupyter_server_config.py").read_text(), {"get_config": lambda: config}
    )
    assert config.ServerApp.jpserver_extensions["jupyter_lsp"] is False
    assert config.DaskJobs.certificate == str(tmp_path / "tls.pem")
