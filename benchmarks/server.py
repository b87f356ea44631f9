# SPDX-License-Identifier: BSD-3-Clause
"""How long a notebook server takes from its first Python until it answers, and what it opens.

    python -m benchmarks.server [--repeat N]

The environment of requirements/notebook.txt, started as a job starts it, before a stub of the hub.
`cold` has an empty page cache, as a node has that did not run it yet. benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from urllib.error import HTTPError
from urllib.request import urlopen

from jinja2 import Environment, StrictUndefined

from benchmarks import installed
from benchmarks.cluster import REPOSITORY

ROLE = REPOSITORY / "roles" / "kernels"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PATIENCE = 120.0  # seconds for one start

# Counts what Python opens, and tells when the server ends.
COUNTING = """
import atexit, json, os, runpy, sys
counts = {"open": 0}
def count(event, _):
    if event == "open":
        counts[event] += 1
sys.addaudithook(count)
def tell():
    with open(os.environ["COUNTS"], "w") as file:
        json.dump({**counts, "modules": len(sys.modules)}, file)
atexit.register(tell)
sys.argv = ["jupyterhub-singleuser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
sys.argv += ["--KernelSpecManager.ensure_native_kernel=False"]
runpy.run_module("jupyterhub.singleuser", run_name="__main__")
"""


@dataclass(frozen=True)
class Variant:
    """One way to start: with the byte code in its place or not, with which extensions."""

    name: str
    compiled: bool
    ours: bool


VARIANTS = (
    Variant("no byte code, every extension", compiled=False, ours=False),
    Variant("byte code, every extension", compiled=True, ours=False),
    Variant("byte code, the role's extensions", compiled=True, ours=True),
)


class _Hub(BaseHTTPRequestHandler):
    """As much of a hub as a notebook server asks for when it starts."""

    def do_GET(self) -> None:
        self._answer({"version": "6.1.1"})

    def do_POST(self) -> None:
        self._answer({})

    def _answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", "6.1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


def server_config(folder: Path) -> None:
    """Write the notebook servers' configuration as the role does, with this repository's code."""
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701 - Python
    environment.filters |= {"to_json": json.dumps, "comment": lambda text: f"# {text}"}
    template = environment.from_string(
        (ROLE / "templates" / "jupyter_server_config.py.j2").read_text()
    )
    text = template.render(
        ansible_managed="benchmark",
        __kernels_library=str(ROLE / "files" / "lib"),
        __kernels_directory=str(folder),
        __kernels_dask_directory=str(folder),
        __kernels_dask_certificate=str(folder / "tls.pem"),
        kernels_default="",
        kernels_dask_tls={},
        kernels_torque_bin="/usr/bin",
    )
    (folder / "jupyter_server_config.py").write_text(text)


def start(prefix: Path, variant: Variant, hub: int, *, cold: bool) -> tuple[float, dict[str, int]]:
    """Start a server once: seconds until it answers, and what it had opened at its end."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        port = _free_port()
        environment = _environment(folder, hub, port)
        # Byte code that is looked for in a folder where there is none, and not kept.
        compiled = [] if variant.compiled else ["-B", "-X", f"pycache_prefix={folder}/none"]
        if variant.ours:
            server_config(folder)
            environment["JUPYTER_CONFIG_PATH"] = str(folder)
        if cold:
            os.sync()
            DROP_CACHES.write_text("3")
        begun = time.perf_counter()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [prefix / "bin" / "python", "-E", "-s", *compiled, "-c", COUNTING],
                env=environment, cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _wait_until_it_answers(port, process, folder / "log")
            seconds = time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        counts: dict[str, int] = json.loads((folder / "counts").read_text())
        return seconds, counts


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _environment(folder: Path, hub: int, port: int) -> dict[str, str]:
    """What the hub gives a job."""
    prefix = "/user/ana/"
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "COUNTS": str(folder / "counts"),
        "JUPYTERHUB_USER": "ana",
        "JUPYTERHUB_API_TOKEN": "token",
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub}/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": f"http://127.0.0.1:{hub}/hub/api/users/ana/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-ana",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:servers!user=ana"]',
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{prefix}",
    }


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/user/ana/api/status", timeout=10):
                return
        except HTTPError:
            return  # it asks for a login: it answers
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"The server does not answer:\n{log.read_text()[-3000:]}")


def measure(repeat: int) -> list[tuple[str, str, float, dict[str, int]]]:
    """Variant, cold or warm, median seconds, counts; the variants take turns."""
    prefix = installed.notebook_environment()
    subprocess.run(
        [prefix / "bin" / "python", "-m", "compileall", "-q", prefix / "lib"], check=False
    )
    stub = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=stub.serve_forever, daemon=True).start()
    temperatures = {"warm": False}
    if os.access(DROP_CACHES, os.W_OK):
        temperatures["cold"] = True
    else:
        print("No cold start: only root can empty the page cache.", file=sys.stderr)
    times: dict[tuple[str, str], list[float]] = {}
    counts: dict[str, dict[str, int]] = {}
    for turn in range(repeat + 1):
        for variant in VARIANTS:
            for temperature, cold in temperatures.items():
                seconds, counts[variant.name] = start(prefix, variant, stub.server_port, cold=cold)
                if turn:  # the first one fills caches
                    times.setdefault((variant.name, temperature), []).append(seconds)
    stub.shutdown()
    return [(*key, median(values), counts[key[0]]) for key, values in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="starts of each kind")
    options = parser.parse_args()
    rows = measure(options.repeat)
    print(f"{'':36}{'':6}{'seconds':>9}{'ratio':>7}{'modules':>9}{'opened':>8}")
    first: dict[str, float] = {}
    for name, temperature, seconds, counts in rows:
        ratio = seconds / first.setdefault(temperature, seconds)
        print(
            f"{name:36}{temperature:6}{seconds:9.2f}{ratio:7.2f}"
            f"{counts['modules']:9}{counts['open']:8}"
        )


if __name__ == "__main__":
    main()
