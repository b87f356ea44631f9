# SPDX-License-Identifier: BSD-3-Clause
"""The ERA5-shaped file: its layout, its numbers, and that it is the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

MAKER = Path(__file__).parents[3] / "molecule/rehearsal/data/make_era5.py"
KELVIN = 273.15


def make(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the maker as the rehearsal does."""
    return subprocess.run(
        [sys.executable, str(MAKER), str(directory), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two years of data, one of them a leap year."""
    directory = tmp_path_factory.mktemp("ERA5")
    done = make(directory, "--first-year=2011", "--last-year=2012")
    assert done.returncode == 0, done.stderr
    return directory


def year(lake: Path, number: int) -> Path:
    """The file of one year."""
    return lake / "0.25" / "t2m" / f"t2m_ERA5_{number}.nc"


def attributes(item: Any) -> dict[str, Any]:
    """Attributes of a variable, texts decoded."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in item.attrs.items()
    }


def test_a_year_has_the_layout_of_era5(lake: Path) -> None:
    with h5py.File(year(lake, 2012)) as file:
        t2m = file["t2m"]
        assert t2m.dtype == np.float32
        assert t2m.shape == (366 * 4, len(file["latitude"]), len(file["longitude"]))
        assert (t2m.compression, t2m.shuffle) == ("gzip", True)
        assert t2m.chunks == (1, *t2m.shape[1:])
        assert [dimension[0].name for dimension in t2m.dims] == ["/time", "/latitude", "/longitude"]
        assert attributes(t2m)["units"] == "K"
        assert attributes(t2m)["standard_name"] == "air_temperature"
        assert attributes(file["time"])["units"] == "hours since 1900-01-01 00:00:00.0"
        assert set(np.diff(file["time"][:])) == {6}
        assert set(np.diff(file["latitude"][:])) == {-0.25}
        assert set(np.diff(file["longitude"][:])) == {0.25}


def test_the_virtual_dataset_is_the_years_one_after_the_other(lake: Path) -> None:
    with h5py.File(lake / "VDS" / "ERA5_0.25.h5") as virtual:
        assert virtual["t2m"].is_virtual
        with h5py.File(year(lake, 2011)) as first, h5py.File(year(lake, 2012)) as second:
            for name in ("t2m", "time"):
                both = np.concatenate([first[name][:], second[name][:]])
                np.testing.assert_array_equal(virtual[name][:], both)


def test_the_virtual_dataset_moves_with_its_years(lake: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    lake.rename(moved)
    try:
        with h5py.File(moved / "VDS" / "ERA5_0.25.h5") as virtual:
            assert np.isfinite(virtual["t2m"][0]).all()
    finally:
        moved.rename(lake)


def test_the_numbers_are_plausible(lake: Path) -> None:
    with h5py.File(year(lake, 2011)) as file:
        t2m = file["t2m"][:] - KELVIN
        latitude, longitude = file["latitude"][:], file["longitude"][:]
    assert -40 < t2m.min() < t2m.max() < 50
    january, july = t2m[: 31 * 4].mean(), t2m[181 * 4 : 212 * 4].mean()
    assert july - january > 8
    sea = t2m[:, :, longitude < -11].mean(axis=(0, 2))
    assert sea[latitude < 34].mean() - sea[latitude > 46].mean() > 5
    madrid = t2m[:, latitude == 40, longitude == -4].reshape(-1, 4).mean(axis=0)
    assert madrid.argmin() in (0, 1)  # 00 and 06 UTC
    assert madrid.max() - madrid.min() > 5


def test_a_second_run_writes_nothing_and_a_second_place_gets_the_same(
    lake: Path, tmp_path: Path
) -> None:
    again = make(lake, "--first-year=2011", "--last-year=2012")
    assert (again.returncode, again.stdout) == (0, "")
    make(tmp_path, "--first-year=2011", "--last-year=2011")
    with h5py.File(year(lake, 2011)) as here, h5py.File(year(tmp_path, 2011)) as there:
        np.testing.assert_array_equal(here["t2m"][:], there["t2m"][:])


def test_a_new_year_enters_the_virtual_dataset(tmp_path: Path) -> None:
    make(tmp_path, "--first-year=2011", "--last-year=2011")
    make(tmp_path, "--first-year=2011", "--last-year=2012")
    with h5py.File(tmp_path / "VDS" / "ERA5_0.25.h5") as virtual:
        assert len(virtual["time"]) == (365 + 366) * 4


def test_years_in_the_wrong_order_are_refused_with_a_sentence(tmp_path: Path) -> None:
    done = make(tmp_path, "--first-year=2012", "--last-year=2011")
    assert done.returncode == 2
    assert "--first-year 2012 comes after --last-year 2011" in done.stderr
    assert list(tmp_path.iterdir()) == []
