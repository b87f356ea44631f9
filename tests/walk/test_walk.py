# SPDX-License-Identifier: BSD-3-Clause
"""A researcher's walk through the hub, from the login page to a computation on four cores.

The tests are steps of one walk and run in the order of this file.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from .browser import Album, Researcher
from .cluster import ERA5, Cluster, Job, outputs_text, wait_until

NOTEBOOK = "era5-mean.ipynb"
SHIPPED = Path(__file__).parents[2] / "notebooks" / NOTEBOOK
PROFILES = {
    "tintel": "tintel - 1 core, 800 MB, 24 hours",
    "long": "long - 1 core, 7 GB, 48 hours",
    "himem": "himem - 1 core, 32 GB, 48 hours",
    "himem4": "himem4 - 4 core, 32 GB, 48 hours",
}
KERNELS = ["Python 3.11 (pyGMS)", "Python 3.9 (pyGMS)", "R (of the nodes)"]
NAMED_SERVERS = ["second", "third", "fourth", "fifth", "summer-school"]
PER_RESEARCHER = 5

# A notebook that works for as long as a file is missing, and then tells what it remembers.
MEMORY = "remembers.ipynb"
END_OF_WORK = "hub-is-back"
REMEMBERS = {
    "remember": "import os, time\nremembered = f'kernel {os.getpid()}'\nprint(remembered)",
    "tick": (
        "from pathlib import Path\n"
        "ticks = []\n"
        f"while not Path('{END_OF_WORK}').exists():\n"
        "    ticks.append(time.time())\n"
        "    print('tick', len(ticks), flush=True)\n"
        "    time.sleep(1)\n"
        "print('longest pause', max(b - a for a, b in zip(ticks, ticks[1:])))"
    ),
    "recall": "print(remembered, os.getpid())",
}


def one_job(cluster: Cluster, owner: str, state: str) -> Job:
    """The only job of a researcher, once it is in a state."""
    jobs = wait_until(
        f"one job of {owner} in state {state}",
        lambda: [job for job in cluster.jobs(owner) if job.state == state],
    )
    assert len(jobs) == 1
    return jobs[0]


def notebook_of(cells: dict[str, str]) -> str:
    """An ipynb file with these code cells."""
    return json.dumps(
        {
            "cells": [
                {
                    "cell_type": "code",
                    "id": name,
                    "source": source,
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                }
                for name, source in cells.items()
            ],
            "metadata": json.loads(SHIPPED.read_text())["metadata"],
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def table_rows(text: str) -> dict[str, list[float]]:
    """The rows of a printed table: first column, then its numbers."""
    found = re.findall(r"^(\d+)((?:[ \t]+-?\d+(?:\.\d+)?)+)[ \t]*$", text, re.MULTILINE)
    return {name: [float(number) for number in numbers.split()] for name, numbers in found}


# --- who may come in ----------------------------------------------------------------------------


def test_the_address_leads_to_the_login_page(meteo1: Researcher) -> None:
    meteo1.open()
    expect(meteo1.page.get_by_label("Username")).to_be_visible()
    meteo1.picture("login")


def test_a_wrong_password_is_refused_with_a_sentence(meteo1: Researcher) -> None:
    meteo1.log_in(password="not-her-password")
    expect(meteo1.page.locator(".login_error")).to_contain_text(re.compile("password", re.I))
    meteo1.picture("refused-wrong-password")


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en-GB", "The account outsider may not use this hub."),
        ("es-ES", "La cuenta outsider no puede usar este servicio."),
    ],
    ids=["english", "spanish"],
)
def test_an_account_without_access_is_refused_with_a_sentence(
    browser: Browser, cluster: Cluster, album: Album, language: str, sentence: str
) -> None:
    account = cluster.accounts["outsider"]
    assert not account.access
    outsider = Researcher(browser, cluster.url, account, album, language)
    outsider.open()
    outsider.log_in()
    expect(outsider.page.locator(".login_error")).to_contain_text(sentence)
    outsider.picture(f"refused-no-access-{language[:2]}")
    assert outsider.open("/hub/spawn").url.startswith(f"{cluster.url}/hub/login")
    outsider.close()


def test_meteo1_logs_in_and_sees_the_four_profiles(meteo1: Researcher, cluster: Cluster) -> None:
    cluster.give_file("meteo1", NOTEBOOK, SHIPPED.read_text())
    cluster.give_file("meteo1", MEMORY, notebook_of(REMEMBERS))
    meteo1.open()
    meteo1.log_in()
    labels = meteo1.page.locator("label.profile")
    expect(labels.first).to_be_visible()
    choices = {
        str(label.locator("input").get_attribute("value")): label.inner_text()
        for label in labels.all()
    }
    for key, shown in PROFILES.items():
        assert shown in choices[key]
    assert list(choices)[: len(PROFILES)] == list(PROFILES)
    meteo1.picture("menu")


# --- a server in the queue ----------------------------------------------------------------------


def test_she_starts_tintel_and_sees_it_queued_then_started(
    meteo1: Researcher, cluster: Cluster
) -> None:
    cluster.delay_jobs(6)
    meteo1.choose("tintel")
    meteo1.await_message("queue tintel", "pending-queued")
    assert one_job(cluster, "meteo1", "Q").queue == "tintel"
    meteo1.await_message("started on node0", "pending-started")
    cluster.delay_jobs(0)


def test_she_lands_in_jupyterlab(meteo1: Researcher) -> None:
    meteo1.await_lab()
    for category in ("Notebook", "Console"):
        cards = meteo1.page.locator(f'.jp-LauncherCard[data-category="{category}"]')
        # In this order, which is the table's.
        expect(cards.locator(".jp-LauncherCard-label")).to_have_text(KERNELS)
    meteo1.picture("lab")


def test_the_job_is_hers_and_runs_on_a_compute_node(cluster: Cluster) -> None:
    job = one_job(cluster, "meteo1", "R")
    assert job.name == "jupyterhub-singleuser"
    assert job.queue == "tintel"
    assert job.node in ("node01", "node02")
    processes = cluster.processes(job.node, "meteo1")
    assert any("jupyterhub-singleuser" in process for process in processes), processes
    assert not any("jupyter" in line for line in cluster.processes("ganymede", "meteo1"))


def test_the_notebook_computes_and_plots_era5(meteo1: Researcher, cluster: Cluster) -> None:
    meteo1.open_notebook(NOTEBOOK)
    meteo1.picture("notebook")
    meteo1.run_all()
    meteo1.await_idle(seconds=300)
    meteo1.show(0, "img")
    meteo1.picture("plot")
    # The site's settings of JupyterLab are in force: it does not ask to fetch news.
    expect(meteo1.page.get_by_text("official Jupyter news")).to_have_count(0)
    meteo1.save()

    cells = meteo1.notebook(NOTEBOOK)
    job = one_job(cluster, "meteo1", "R")
    assert f"runs on {job.node} and has 1 core" in outputs_text(cells["imports"])
    shown = {year: values[0] for year, values in table_rows(outputs_text(cells["yearly"])).items()}
    assert shown == pytest.approx(cluster.yearly_means(), abs=0.006)  # two decimals are shown
    assert list(table_rows(outputs_text(cells["timing"]))) == ["1"]
    assert "Not measured: [2, 4] processes" in outputs_text(cells["timing"])


def test_a_second_named_server_of_meteo2_runs_beside(meteo2: Researcher, cluster: Cluster) -> None:
    meteo2.enter()
    meteo2.add_server(NAMED_SERVERS[0])
    meteo2.open_menu_of(NAMED_SERVERS[0])
    meteo2.choose("tintel")
    meteo2.await_lab(NAMED_SERVERS[0])
    meteo2.picture("named-server")
    job = one_job(cluster, "meteo2", "R")
    assert any("jupyterhub-singleuser" in line for line in cluster.processes(job.node, "meteo2"))
    assert one_job(cluster, "meteo1", "R").id != job.id


def test_a_restarted_hub_disturbs_no_running_notebook(meteo1: Researcher, cluster: Cluster) -> None:
    meteo1.open_notebook(MEMORY)
    meteo1.run_all()
    ticking = meteo1.page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output").nth(1)
    expect(ticking).to_contain_text("tick 3")

    cluster.restart_hub()
    wait_until("the hub answers", meteo1.hub_is_up, seconds=60)
    ticks = str(ticking.text_content()).count("tick")
    expect(ticking).to_contain_text(f"tick {ticks + 3}")
    meteo1.picture("hub-restarted")
    cluster.give_file("meteo1", END_OF_WORK, "")
    meteo1.await_idle(seconds=30)
    expect(meteo1.page.locator(".jp-Dialog")).to_have_count(0)
    meteo1.save()

    cells = meteo1.notebook(MEMORY)
    kernel = outputs_text(cells["remember"]).split()[-1]
    assert outputs_text(cells["recall"]).split() == ["kernel", kernel, kernel]
    ticked = outputs_text(cells["tick"])
    counted = [int(number) for number in re.findall(r"tick (\d+)", ticked)]
    assert counted == list(range(1, len(counted) + 1))
    pause = re.search(r"longest pause ([\d.]+)", ticked)
    assert pause is not None
    assert float(pause[1]) < 5
    assert one_job(cluster, "meteo1", "R")
    servers = [route.rstrip("/") for route in cluster.routes() if "/user/" in route]
    assert sorted(servers) == ["/ganymede/user/meteo1", "/ganymede/user/meteo2/second"]


def test_stop_leaves_no_job_no_route_and_no_process(meteo1: Researcher, cluster: Cluster) -> None:
    node = one_job(cluster, "meteo1", "R").node
    assert any("ipykernel" in process for process in cluster.processes(node, "meteo1"))
    meteo1.stop_server()
    meteo1.picture("home-stopped")
    cluster.await_no_job("meteo1")
    assert not any("/user/meteo1" in route for route in cluster.routes())
    wait_until(
        "no process of hers is left on the node",
        lambda: not cluster.processes(node, "meteo1"),
        seconds=30,
    )


def test_himem4_times_one_two_and_four_workers(
    meteo1: Researcher, meteo2: Researcher, cluster: Cluster
) -> None:
    meteo2.remove_servers()  # four cores are free on node01 alone
    cluster.await_no_job("meteo2")
    cluster.give_file("meteo1", NOTEBOOK, SHIPPED.read_text())
    meteo1.open("/hub/spawn")
    meteo1.choose("himem4")
    meteo1.await_lab()
    job = one_job(cluster, "meteo1", "R")
    assert (job.queue, job.node) == ("himem", "node01")
    meteo1.open_notebook(NOTEBOOK)
    meteo1.run_all()
    meteo1.await_idle(seconds=600)
    meteo1.show(-1, "img")
    meteo1.picture("timing-charts")
    meteo1.save()

    cells = meteo1.notebook(NOTEBOOK)
    timing = table_rows(outputs_text(cells["timing"]))
    assert list(timing) == ["1", "2", "4"]
    assert all(elapsed > 0 and rate > 0 for elapsed, rate in timing.values())
    assert any("image/png" in output.get("data", {}) for output in cells["charts"]["outputs"])
    meteo1.stop_server()


# A cluster of dask on two nodes: two cores for each worker, more than node01 has left for both.
DASK = "dask.ipynb"
DASK_CELLS = {
    "start": (
        "from dask.distributed import Client\n"
        "from dask_jobqueue import PBSCluster\n"
        "cluster = PBSCluster(cores=2, resource_spec='nodes=1:ppn=2,mem=800mb')\n"
        "cluster.scale(jobs=2)\n"
        "client = Client(cluster)\n"
        "client.wait_for_workers(2, timeout=90)\n"
        "print(*sorted(client.run(lambda: __import__('os').uname().nodename).values()))"
    ),
    "mean": (
        "import xarray as xr\n"
        f"data = '{ERA5}/VDS/ERA5_0.25.h5'\n"
        "t2m = xr.open_dataset(data, chunks={'time': 10})['t2m']\n"
        "yearly = t2m.mean(['latitude', 'longitude']).resample(time='YS').mean().compute()\n"
        "for year, value in zip(yearly.time.dt.year.values, yearly.values):\n"
        "    print(year, round(float(value) - 273.15, 2))"
    ),
}


def test_a_dask_cluster_computes_on_two_nodes_and_ends_with_the_notebook(
    meteo1: Researcher, cluster: Cluster
) -> None:
    cluster.give_file("meteo1", DASK, notebook_of(DASK_CELLS))
    meteo1.open("/hub/spawn")
    meteo1.choose("tintel")
    meteo1.await_lab()
    meteo1.open_notebook(DASK)
    meteo1.run_all()
    meteo1.await_idle(seconds=180)
    meteo1.save()
    meteo1.show_dask("Workers")
    meteo1.picture("dask")

    cells = meteo1.notebook(DASK)
    assert outputs_text(cells["start"]).split() == ["node01", "node02"]
    shown = {year: values[0] for year, values in table_rows(outputs_text(cells["mean"])).items()}
    assert shown == pytest.approx(cluster.yearly_means(), abs=0.006)
    workers = [job for job in cluster.jobs("meteo1") if job.name == "dask-worker"]
    assert [(job.queue, job.state) for job in workers] == [("tintel", "R")] * 2

    meteo1.stop_server()
    cluster.await_no_job("meteo1")
    for node in ("node01", "node02"):
        wait_until(
            f"no process of hers is left on {node}",
            partial(lambda node: not cluster.processes(node, "meteo1"), node),
            seconds=30,
        )


# --- what is refused ----------------------------------------------------------------------------


def test_a_profile_that_does_not_exist_is_refused_with_a_sentence(
    meteo1: Researcher, cluster: Cluster
) -> None:
    response = meteo1.open("/hub/spawn?profile=gigamem")
    assert response.status == 400
    expect(meteo1.page.locator(".spawn-error-msg")).to_contain_text("no profile 'gigamem'")
    expect(meteo1.page.locator(".spawn-error-msg")).to_contain_text("himem4")
    meteo1.picture("refused-unknown-profile")

    for options in ({"profile": "gigamem"}, {"profile": "tintel", "memory": "64gb"}, {}):
        status, answer = meteo1.hub_api("POST", "/users/meteo1/server", options)
        assert status == 400
        assert "himem4" in answer["message"]
    assert cluster.jobs("meteo1") == []


def test_the_sixth_named_server_is_refused_with_a_sentence(
    meteo2: Researcher, cluster: Cluster
) -> None:
    for name in NAMED_SERVERS:
        status, answer = meteo2.start_by_api(name, "tintel")
        assert status in (201, 202), answer
    wait_until(
        "five servers are ready",
        lambda: sum(bool(server["ready"]) for server in meteo2.servers().values()) == 5,
        seconds=180,
    )
    assert len(cluster.jobs("meteo2")) == PER_RESEARCHER
    meteo2.open_home()
    meteo2.picture("home-named-servers")

    meteo2.add_server("one-too-many")
    expect(meteo2.page.locator("#error-dialog")).to_be_visible()
    expect(meteo2.page.locator("#error-dialog")).to_contain_text("5 named servers")
    meteo2.picture("refused-sixth-server")
    status, answer = meteo2.start_by_api("one-too-many", "tintel")
    assert status == 400
    assert "5 named servers" in answer["message"]
    assert len(cluster.jobs("meteo2")) == PER_RESEARCHER
