# SPDX-License-Identifier: BSD-3-Clause
"""What the server keeps: attributes, queues, nodes and jobs, each change written to disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from mock_torque import resources
from mock_torque.home import MOM_PORT, Home, read_json, write_json
from mock_torque.job import Job

VERSION = "6.1.3"
OLD_VERSION = "4.2.10"
KEEP_COMPLETED = {VERSION: 300, OLD_VERSION: 0}  # seconds, when keep_completed is unset

log = logging.getLogger(__name__)


@dataclass
class Queue:
    """``attributes`` as qmgr writes them: queue_type, enabled, resources_max.walltime ..."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    mtime: int = 0

    def flag(self, name: str) -> bool:
        """A boolean attribute; unset is False."""
        return self.attributes.get(name, "False") == "True"

    def number(self, name: str) -> int | None:
        """A limit on a number of jobs, None when unlimited."""
        text = self.attributes.get(name)
        return None if text is None else int(text)

    def resources(self, prefix: str) -> dict[str, str]:
        """``resources_max``, ``resources_default`` ... in the order in which they were set."""
        dotted = f"{prefix}."
        return {
            name.removeprefix(dotted): value
            for name, value in self.attributes.items()
            if name.startswith(dotted)
        }


@dataclass
class Node:
    """A row of server_priv/nodes and what its mom has told."""

    name: str
    np: int = 1
    memory: int | None = None  # bytes offered; None: not counted
    properties: list[str] = field(default_factory=list)
    port: int = MOM_PORT
    address: str = ""  # where its mom was last heard
    offline: bool = False
    note: str = ""
    down: bool = True
    status: str = ""
    heard: float = 0.0

    def row(self) -> str:
        """The line of server_priv/nodes."""
        words = [self.name, f"np={self.np}"]
        if self.memory is not None:
            words.append(f"mem={self.memory // 1024}kb")
        if self.port != MOM_PORT:
            words.append(f"mom_service_port={self.port}")
        return " ".join(words + self.properties)


def parse_node(line: str) -> Node:
    """One line of server_priv/nodes: ``node01 np=4 mem=64gb property ...``.

    ``mem`` is this mock's own: memory that the scheduler may give away. Raises ValueError.
    """
    name, *words = line.split()
    node = Node(name)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            node.properties.append(word)
        elif key == "np":
            node.np = int(value)
        elif key == "mem":
            node.memory = resources.size_bytes(value)
        elif key == "mom_service_port":
            node.port = int(value)
        else:
            raise ValueError(f"{word}: write np=N, mem=SIZE, mom_service_port=N or a property")
    return node


class State:
    """Everything below server_priv. Raises SystemExit when a file there cannot be used."""

    def __init__(self, home: Home, name: str) -> None:
        self.folder = home.server_priv
        self.jobs_folder = self.folder / "jobs"
        self.name = name
        self.version = VERSION
        self.attributes: dict[str, str] = {}
        self.queues: dict[str, Queue] = {}
        self.nodes: dict[str, Node] = {}
        self.jobs: dict[str, Job] = {}
        self.next_number = 0
        self.first_start = not self._database.exists()

    @property
    def _database(self) -> Path:
        return self.folder / "serverdb"

    def load(self) -> None:
        """Read all files; the nodes file wins over what was stored about nodes."""
        self.jobs_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.version = self._read_version()
        if not self.first_start:
            stored = read_json(self._database)
            self.attributes = stored["attributes"]
            self.next_number = stored["next_number"]
            self.queues = {
                name: Queue(name, **content) for name, content in stored["queues"].items()
            }
        self._load_nodes({} if self.first_start else stored["nodes"])
        files = sorted(self.jobs_folder.glob("*.json"), key=lambda path: int(path.stem))
        for path in files:
            job = Job.from_json(read_json(path))
            self.jobs[job.id] = job

    def _read_version(self) -> str:
        path = self.folder / "version"
        version = path.read_text().strip() if path.exists() else VERSION
        if version not in KEEP_COMPLETED:
            raise SystemExit(f"{path}: {version!r}; write {VERSION} or {OLD_VERSION}")
        return version

    def _load_nodes(self, stored: dict[str, dict[str, str | bool]]) -> None:
        path = self.folder / "nodes"
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            row = line.partition("#")[0].strip()
            if not row:
                continue
            try:
                node = parse_node(row)
            except ValueError as error:
                raise SystemExit(f"{path}, line {number}: {error}") from error
            known = stored.get(node.name, {})
            node.offline = bool(known.get("offline", False))
            node.note = str(known.get("note", ""))
            node.address = str(known.get("address", ""))
            self.nodes[node.name] = node

    def save(self) -> None:
        """Write everything but the jobs."""
        write_json(self._database, {
            "attributes": self.attributes,
            "next_number": self.next_number,
            "queues": {
                queue.name: {"attributes": queue.attributes, "mtime": queue.mtime}
                for queue in self.queues.values()
            },
            "nodes": {
                node.name: {"offline": node.offline, "note": node.note, "address": node.address}
                for node in self.nodes.values()
            },
        })  # fmt: skip

    def save_nodes(self) -> None:
        """Rewrite the nodes file after qmgr changed a node, as TORQUE does."""
        rows = "".join(f"{node.row()}\n" for node in self.nodes.values())
        (self.folder / "nodes").write_text(rows)
        self.save()

    def take_number(self) -> int:
        """The next job number; it is burnt even if the job is then refused."""
        number = self.next_number
        self.next_number += 1
        self.save()
        return number

    def save_job(self, job: Job) -> None:
        """Write the job's file."""
        self.jobs[job.id] = job
        write_json(self.jobs_folder / f"{job.sequence}.json", job.to_json())

    def forget(self, job: Job) -> None:
        """The job has never existed."""
        del self.jobs[job.id]
        (self.jobs_folder / f"{job.sequence}.json").unlink(missing_ok=True)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean server attribute."""
        return self.attributes.get(name, str(default)) == "True"

    def number(self, name: str, default: int) -> int:
        """A numeric server attribute."""
        return int(self.attributes.get(name, default))

    def names(self, name: str) -> list[str]:
        """A list attribute: managers, submit_hosts ..."""
        return [item for item in self.attributes.get(name, "").split(",") if item]

    @property
    def keep_completed(self) -> int:
        """Seconds for which a completed job is shown."""
        return self.number("keep_completed", KEEP_COMPLETED[self.version])

    def slots_taken(self, node: Node) -> dict[int, Job]:
        """The slots of a node which jobs hold."""
        return {
            slot: job
            for job in self.jobs.values()
            if job.state in {"R", "E"}
            for name, slots in job.allocation
            if name == node.name
            for slot in slots
        }

    def memory_taken(self, node: Node) -> int:
        """Bytes of a node's offer which jobs hold."""
        return sum(
            job.memory // len(job.allocation)
            for job in self.jobs.values()
            if job.state in {"R", "E"} and any(name == node.name for name, _ in job.allocation)
        )

    def node_state(self, node: Node) -> str:
        """``free``, ``job-exclusive``, ``down``, ``offline`` or ``down,offline``."""
        words = [word for word, on in (("down", node.down), ("offline", node.offline)) if on]
        if words:
            return ",".join(words)
        return "job-exclusive" if len(self.slots_taken(node)) >= node.np else "free"
