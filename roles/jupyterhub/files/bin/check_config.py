# SPDX-License-Identifier: BSD-3-Clause
"""Check a hub configuration or a table before it replaces the one in service.

    check_config.py config jupyterhub_config.py
    check_config.py profiles profiles.json
    check_config.py kernels kernels.json

Loads the configuration as JupyterHub does and builds the objects that it configures, with no
server started and no database opened. Prints one sentence for each problem; status 1 if any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from custom_pbs_spawner.tables import TableError, load_kernels, load_profiles
from jupyterhub.app import JupyterHub
from traitlets import TraitError
from traitlets.config import Config, Configurable
from traitlets.config.loader import PyFileConfigLoader

NAME = "jupyterhub_config.py"


def config_problems(path: Path) -> Iterator[str]:
    """Say what JupyterHub would refuse, or silently ignore, in a configuration file.

    The sentences call it jupyterhub_config.py: what is checked is a temporary copy.
    """
    try:
        config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    except Exception as error:  # noqa: BLE001  the file is a program: it may raise anything
        yield f"{NAME}: the file cannot be loaded: {type(error).__name__}: {error}."
        return
    try:
        app = JupyterHub(config=config)
        main_classes = (app.spawner_class, app.authenticator_class, app.proxy_class)
    except (TraitError, ImportError) as error:
        yield f"{NAME}: {error}"
        return
    configured = [JupyterHub, *main_classes]
    for name, section in config.items():
        classes = [cls for cls in _loaded_classes(Configurable) if cls.__name__ == name]
        if not classes:
            yield f"{NAME}: c.{name}: nothing that the hub loads has this name."
            continue
        yield from _unknown_traits(section, classes)
        if not any(issubclass(main, cls) for main in configured for cls in classes):
            configured.extend(classes)
    for cls in configured[1:]:
        try:
            cls(config=config)
        except (TraitError, ValueError) as error:
            yield f"{NAME}: {error}"


def _loaded_classes(base: type[Configurable]) -> Iterator[type[Configurable]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _loaded_classes(cls)


def _unknown_traits(section: Config, classes: list[type[Configurable]]) -> Iterator[str]:
    known = {trait for cls in classes for trait in cls.class_traits(config=True)}
    name = classes[0].__name__
    for trait in section:
        if trait not in known:
            yield f"{NAME}: c.{name}.{trait}: {name} has no such setting."


def table_problems(load: Callable[[Path], object], path: Path) -> Iterator[str]:
    """Say what is wrong with a table."""
    try:
        load(path)
    except TableError as error:
        yield from error.problems


def main(arguments: list[str]) -> int:
    checks: dict[str, Callable[[Path], Iterator[str]]] = {
        "config": config_problems,
        "profiles": partial(table_problems, load_profiles),
        "kernels": partial(table_problems, load_kernels),
    }
    kind, path = arguments
    problems = list(checks[kind](Path(path)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
