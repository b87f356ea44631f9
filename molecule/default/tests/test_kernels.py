# SPDX-License-Identifier: BSD-3-Clause
"""The kernels of the table in a job: which there are, how they start, stop, and what they say."""

from __future__ import annotations

import base64
import shlex
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import testinfra
from testinfra.host import Host

from tests.hub_client import SERVER, Researcher, wait_for

HOME = "/oceano/gmeteo/users/meteo1"
KERNELS = "/software/jupyterhub/kernels"
NEW, OLD, R = "jh-ganymede-pygms-3.11", "jh-ganymede-pygms-3.9", "jh-ganymede-r"


@pytest.fixture(scope="module")
def kernels(running: Researcher) -> dict[str, str]:
    """The three kernels, started side by side in one server: id by name."""
    return {name: running.start_kernel(SERVER, name) for name in (NEW, OLD, R)}


@pytest.fixture(scope="module")
def node(running: Researcher, kernels: dict[str, str], host: Host) -> Host:
    """The host on which the job runs."""
    name = running.compute(SERVER, kernels[NEW], "import socket; print(socket.gethostname())")
    hub: str = host.backend.name
    found: Host = testinfra.get_host(f"docker://{hub.rpartition('-')[0]}-{name}")
    return found


def test_only_the_table_is_offered_and_in_its_order(running: Researcher, node: Host) -> None:
    """The node has a kernelspec of its own, as Debian's package of IRkernel brings it."""
    assert node.file("/usr/share/jupyter/kernels/ir/kernel.json").exists
    offered = running.get(SERVER, "api/kernelspecs").json()
    assert list(offered["kernelspecs"]) == [NEW, OLD, R]
    assert offered["default"] == NEW
    for kernel in offered["kernelspecs"].values():
        prefix = f"/ganymede/user/{running.name}/{SERVER}/"
        logo = running.get(SERVER, kernel["resources"]["logo-svg"].removeprefix(prefix))
        assert logo.headers["Content-Type"] == "image/svg+xml"
        assert f">{kernel['spec']['display_name'].strip()[:2]}</text>" in logo.text
    names = [kernel["spec"]["display_name"] for kernel in offered["kernelspecs"].values()]
    assert sorted(names) == names, "JupyterLab sorts by them"
    assert names[0].strip() == "Python 3.11 (pyGMS)"


# Packages of that age warn on their way, before or after what is printed.
VERSIONS = """
import warnings
warnings.simplefilter("ignore")
import os, sys, dask, h5py, netCDF4, numpy, pandas, xarray, dask.array
with h5py.File("test.h5", "w") as file:
    file["x"] = numpy.arange(6.0)
with h5py.File("test.h5") as file:
    total = dask.array.from_array(file["x"], chunks=2).sum().compute(scheduler="threads")
os.unlink("test.h5")
print(*sys.version_info[:2], pandas.__version__, xarray.__version__, dask.__version__, total,
      os.environ["CONDA_PREFIX"] == sys.prefix)
"""


def test_two_pythons_with_packages_of_their_own(
    running: Researcher, kernels: dict[str, str]
) -> None:
    old = running.compute(SERVER, kernels[OLD], VERSIONS).split()
    assert old == ["3", "9", "1.3.5", "0.20.2", "2022.02.0", "15.0", "True"]
    new = running.compute(SERVER, kernels[NEW], VERSIONS).split()
    assert new[:2] == ["3", "11"]
    assert new[-2:] == ["15.0", "True"]
    assert not set(new[2:5]) & set(old[2:5])


def test_r_computes_and_plots_and_says_first_that_it_needs_more_memory(
    running: Researcher, kernels: dict[str, str]
) -> None:
    code = "cat(mean(c(1, 2, 6)), R.version$major); plot(1:10)"
    answers = running.run_cell(SERVER, kernels[R], code, **{"Accept-Language": "es-ES,es;q=0.9"})
    printed = [a["content"] for a in answers if a["msg_type"] == "stream"]
    assert printed[0]["name"] == "stderr"
    assert printed[0]["text"].startswith(
        "R (of the nodes) necesita 3 GB de memoria y este servidor tiene 800 MB."
    )
    assert printed[1]["text"] == "3 4"
    (plot,) = [a["content"]["data"] for a in answers if a["msg_type"] == "display_data"]
    picture = base64.b64decode(plot["image/png"])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 2000
    assert running.compute(SERVER, kernels[R], "cat(1)") == "1", "said once"


def test_the_menu_says_which_profile_is_too_small(
    researcher: Callable[[str], Researcher],
) -> None:
    meteo1 = researcher("meteo1")
    meteo1.log_in()
    page = meteo1.session.get(f"{meteo1.url}/hub/spawn/{meteo1.name}/other", timeout=10).text
    cards = page.split('name="profile" value="')[1:]
    told = [
        card.split('"')[0] for card in cards if "kernel R (of the nodes): it needs 3 GB" in card
    ]
    assert told == ["tintel"]


LOOPS = {
    NEW: "open('looping', 'w').close()\nkept = 41\nwhile True: pass",
    OLD: "open('looping', 'w').close()\nkept = 41\nimport time; time.sleep(600)",
    R: "invisible(file.create('looping')); kept <- 41; while (TRUE) {}",
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_long_computation_is_interrupted(
    running: Researcher,
    host: Host,
    kernels: dict[str, str],
    name: str,
    record_property: Callable[[str, float], None],
) -> None:
    """And has kept what it knew. How soon goes into the report: a busy machine is slow."""
    host.check_output(f"rm -f {HOME}/looping")
    with ThreadPoolExecutor(1) as pool:
        cell = pool.submit(running.run_cell, SERVER, kernels[name], LOOPS[name])
        wait_for("the loop", lambda: host.file(f"{HOME}/looping").exists, 30)
        start = time.monotonic()
        running.kernel_action(SERVER, kernels[name], "interrupt")
        answers = cell.result(timeout=30)
        record_property("seconds_until_interrupted", round(time.monotonic() - start, 2))
    errors = [a["content"]["ename"] for a in answers if a["msg_type"] == "error"]
    assert errors == ([] if name == R else ["KeyboardInterrupt"])
    show = "cat(kept + 1)" if name == R else "print(kept + 1)"
    assert running.compute(SERVER, kernels[name], show) == "42"


def gone(node: Host, process: str) -> bool:
    """Whether there is no such process any more."""
    return not node.file(f"/proc/{process}").exists


PROCESSES = """
import os, subprocess
subprocess.Popen(["sleep", "7654399"])
print(os.getpid())
"""


def test_a_restart_leaves_no_process_behind(
    running: Researcher, node: Host, kernels: dict[str, str]
) -> None:
    for name, code in ((OLD, PROCESSES), (R, "system('sleep 7654399 &'); cat(Sys.getpid())")):
        before = running.compute(SERVER, kernels[name], code)
        program = node.check_output(f"cat /proc/{before}/comm")
        assert program in {"python", "R"}, "the wrapper has become the kernel"
        running.kernel_action(SERVER, kernels[name], "restart")
        wait_for("its end", partial(gone, node, before), 10)
        assert node.run("pgrep -xf 'sleep 7654399'").stdout == ""
        shown = "cat(Sys.getpid())" if name == R else "import os; print(os.getpid())"
        assert running.compute(SERVER, kernels[name], shown) != before


def test_a_kernel_starts_activated_and_ends_when_it_is_asked_to(
    running: Researcher, host: Host, node: Host
) -> None:
    script = f"{KERNELS}/jh-ganymede-pyGMS-3.9/current/etc/conda/activate.d/test.sh"
    host.check_output(f"mkdir -p $(dirname {script})")
    host.check_output(f"echo 'export JAVA_HOME=$CONDA_PREFIX/java' > {script}")
    try:
        kernel = running.start_kernel(SERVER, OLD)
        shown = running.compute(
            SERVER, kernel, "import os; print(os.environ['JAVA_HOME'], os.getpid())"
        ).split()
    finally:
        host.check_output(f"rm {script}")
    assert shown[0].startswith(f"{KERNELS}/jh-ganymede-pyGMS-3.9/jh-ganymede-pyGMS-3.9-")
    assert running.session.delete(f"{running.address(SERVER)}/api/kernels/{kernel}", timeout=30).ok
    wait_for("its end", partial(gone, node, shown[1]), 10)


MODULE = """#%Module
prepend-path PATH /opt/module-test
setenv FROM_MODULE yes
"""


def test_modules_of_the_site_are_loaded_before_the_kernel(host: Host) -> None:
    """By the real `module` command, of Debian's package environment-modules."""
    wrapper, folder = "/software/jupyterhub/bin/start-kernel", "/opt/module-test"
    program = f"{folder}/hello"
    host.check_output(f"mkdir -p {folder}/modulefiles/tool")
    host.check_output(f"printf %s {shlex.quote(MODULE)} > {folder}/modulefiles/tool/1.0")
    host.check_output(
        f"printf '#!/bin/sh\\necho $FROM_MODULE \"$@\"\\n' > {program}; chmod 755 {program}"
    )
    start = f"runuser -u meteo1 -- env MODULEPATH={folder}/modulefiles {wrapper} --module tool/"
    try:
        assert host.check_output(f"{start}1.0 -- hello 'a b'") == "yes a b"
        assert host.check_output(f"{start}1.0 --find hello") == program
        refused = host.run(f"{start}2.0 -- hello")
        assert (refused.rc, refused.stdout) == (1, "")
        assert "the module tool/2.0 cannot be loaded on" in refused.stderr
    finally:
        host.check_output(f"rm -r {folder}")
