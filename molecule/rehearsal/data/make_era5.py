#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Make a small data lake with the layout of ERA5: yearly files and one virtual dataset over them.

    make_era5.py /lustre/gmeteo/WORK/DATA/C3S-CDS/ERA5

    ERA5/0.25/t2m/t2m_ERA5_2011.nc …   NetCDF4/HDF5, one file for each year
    ERA5/VDS/ERA5_0.25.h5              HDF5 virtual dataset: all years as one variable

The layout is that of ERA5: time, latitude (north first) and longitude on the 0.25° grid, float32
kelvin, CF attributes, one map per chunk because ERA5 is archived map by map, shuffle + zlib. Two
things are smaller: the map is cut to the Iberian Peninsula and its seas, and every sixth of the
hourly steps is kept (00, 06, 12, 18 UTC). The numbers are invented: latitude, height, season, hour
of the day, a trend and passing weather. They are the same on every run.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

GRID = 0.25  # degrees
LATITUDE = np.arange(48.0, 32.0 - GRID / 2, -GRID, dtype=np.float32)  # north first, as ERA5
LONGITUDE = np.arange(-14.0, 8.0 + GRID / 2, GRID, dtype=np.float32)
HOURS_KEPT = 6
EPOCH = np.datetime64("1900-01-01T00", "h")
TIME_UNITS = "hours since 1900-01-01 00:00:00.0"
# GRIB packs a map into 16-bit steps; a float32 that came from GRIB has only those values.
PACKING_STEP = 2.0**-7  # kelvin
SEED = 19790101


@dataclass(frozen=True)
class Surface:
    """What does not change with time, each on (latitude, longitude)."""

    mean: Field  # kelvin
    yearly_amplitude: Field  # kelvin
    daily_amplitude: Field  # kelvin


def ellipse(latitude: float, longitude: float, north_south: float, east_west: float) -> Field:
    """A smooth bump, 1 in the middle and 0 far away; half axes in degrees."""
    north = (LATITUDE[:, None] - latitude) / north_south
    east = (LONGITUDE[None, :] - longitude) / east_west
    distance = np.hypot(north, east)
    bump: Field = (0.5 - 0.5 * np.tanh(6 * (distance - 1))).astype(np.float32)
    return bump


def surface() -> Surface:
    """Land, sea and mountains in a few strokes: Iberia, France, Africa; Meseta, Pyrenees, Atlas."""
    land = np.clip(
        ellipse(40.2, -4.0, 3.7, 5.2) + ellipse(47.5, 4.0, 3.8, 5.3) + ellipse(31.0, 0.0, 4.4, 9.0),
        0,
        1,
    )
    height = (  # kilometres
        0.7 * ellipse(41.0, -4.0, 2.3, 3.0)
        + 1.5 * ellipse(42.7, 0.6, 0.5, 2.2)
        + 1.4 * ellipse(37.1, -3.2, 0.4, 1.2)
        + 1.5 * ellipse(32.5, -4.5, 1.5, 3.5)
    )
    sea_level = 291.5 - 0.62 * (LATITUDE[:, None] - 40)
    return Surface(
        mean=(sea_level - 6.5 * height).astype(np.float32),
        yearly_amplitude=3.8 + 5.2 * land,
        daily_amplitude=0.4 + 4.4 * land,
    )


def weather(steps: int, random: np.random.Generator) -> Field:
    """Highs and lows that last about four days, in kelvin: coarse noise, drawn smoothly."""
    coarse = random.standard_normal((steps, 5, 6), dtype=np.float32)
    memory = np.exp(-HOURS_KEPT / 96)
    fresh = np.sqrt(1 - memory**2)
    for step in range(1, steps):
        coarse[step] = memory * coarse[step - 1] + fresh * coarse[step]
    to_latitude = interpolation(len(LATITUDE), 5)
    to_longitude = interpolation(len(LONGITUDE), 6)
    field: Field = (2.8 * (to_latitude @ coarse @ to_longitude.T)).astype(np.float32)
    return field


def interpolation(fine: int, coarse: int) -> Field:
    """Weights (fine, coarse) of cosine interpolation between evenly spaced points."""
    position = np.linspace(0, coarse - 1, fine)
    left = np.minimum(position.astype(int), coarse - 2)
    share = (1 - np.cos(np.pi * (position - left))) / 2
    weights = np.zeros((fine, coarse), dtype=np.float32)
    rows = np.arange(fine)
    weights[rows, left] = 1 - share
    weights[rows, left + 1] += share
    return weights


def temperature(times: NDArray[np.datetime64], ground: Surface) -> Field:
    """2 m temperature (time, latitude, longitude) in kelvin."""
    year = int(times[0].astype("datetime64[Y]").astype(int)) + 1970
    random = np.random.default_rng([SEED, year])
    hours = (times - times[0].astype("datetime64[Y]")).astype("timedelta64[h]").astype(float)
    coldest = 25  # day of the year: 26 January
    season = -np.cos(2 * np.pi * (hours / 24 - coldest) / 365.25).astype(np.float32)
    solar_hour = hours[:, None] + LONGITUDE[None, :] / 15
    sun = np.cos(2 * np.pi * (solar_hour - 15) / 24).astype(np.float32)  # warmest: 15 h local time
    trend = np.float32(0.035) * (year - 1981 + (hours / 8766).astype(np.float32))
    unevenness = random.normal(0, 0.35)  # no two years are alike
    field = weather(len(times), random)
    field += ground.mean + np.float32(unevenness)
    field += trend[:, None, None]
    field += season[:, None, None] * ground.yearly_amplitude
    field += sun[:, None, :] * ground.daily_amplitude
    packed: Field = np.round(field / np.float32(PACKING_STEP)) * np.float32(PACKING_STEP)
    return packed


def write_coordinates(file: h5py.File, hours: NDArray[np.int32]) -> None:
    """The three coordinate variables as NetCDF4 dimensions, with ERA5's attributes."""
    coordinates: dict[str, tuple[NDArray[np.generic], dict[str, str]]] = {
        "time": (
            hours,
            {
                "standard_name": "time",
                "long_name": "time",
                "units": TIME_UNITS,
                "calendar": "gregorian",
                "axis": "T",
            },
        ),
        "latitude": (
            LATITUDE,
            {
                "standard_name": "latitude",
                "long_name": "latitude",
                "units": "degrees_north",
                "stored_direction": "decreasing",
                "axis": "Y",
            },
        ),
        "longitude": (
            LONGITUDE,
            {
                "standard_name": "longitude",
                "long_name": "longitude",
                "units": "degrees_east",
                "axis": "X",
            },
        ),
    }
    for number, (name, (values, attributes)) in enumerate(coordinates.items()):
        dataset = file.create_dataset(name, data=values)
        dataset.make_scale(name)
        dataset.attrs["_Netcdf4Dimid"] = np.int32(number)
        for attribute, text in attributes.items():
            dataset.attrs[attribute] = np.bytes_(text)


def finish(file: h5py.File, t2m: h5py.Dataset, what: str) -> None:
    """Attach the dimensions to t2m and write the attributes of variable and file."""
    for axis, name in enumerate(("time", "latitude", "longitude")):
        t2m.dims[axis].attach_scale(file[name])
    t2m.attrs["_FillValue"] = np.array([np.nan], dtype=np.float32)
    for attribute, text in {
        "units": "K",
        "standard_name": "air_temperature",
        "long_name": "2 metre temperature",
        "cell_methods": "time: point",
    }.items():
        t2m.attrs[attribute] = np.bytes_(text)
    for attribute, text in {
        "Conventions": "CF-1.7",
        "title": "ERA5-shaped 2 metre temperature, invented numbers",
        "comment": f"{what}. Layout of ERA5 hourly data on single levels; every sixth hour kept.",
    }.items():
        file.attrs[attribute] = np.bytes_(text)


def write_year(path: Path, year: int, ground: Surface) -> int:
    """Write one year, return its number of time steps. The file appears only when it is whole."""
    times = np.arange(f"{year}-01-01T00", f"{year + 1}-01-01T00", HOURS_KEPT, dtype="datetime64[h]")
    values = temperature(times, ground)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with h5py.File(unfinished, "w", track_order=True) as file:
        write_coordinates(file, (times - EPOCH).astype(np.int32))
        t2m = file.create_dataset(
            "t2m",
            data=values,
            chunks=(1, len(LATITUDE), len(LONGITUDE)),
            compression="gzip",
            compression_opts=1,
            shuffle=True,
            fillvalue=np.float32(np.nan),
        )
        finish(file, t2m, f"The year {year}")
    unfinished.replace(path)
    return len(times)


def write_virtual(path: Path, years: dict[Path, int]) -> None:
    """Write the virtual dataset; sources are named relative to it, so the tree can be moved."""
    steps = sum(years.values())
    shape = (steps, len(LATITUDE), len(LONGITUDE))
    layout = h5py.VirtualLayout(shape=shape, dtype=np.float32)
    hours = np.empty(steps, dtype=np.int32)
    start = 0
    for source, count in years.items():
        name = os.path.relpath(source, path.parent)
        layout[start : start + count] = h5py.VirtualSource(name, "t2m", (count, *shape[1:]))
        with h5py.File(source) as file:
            hours[start : start + count] = file["time"][:]
        start += count
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with h5py.File(unfinished, "w", track_order=True) as file:
        write_coordinates(file, hours)
        t2m = file.create_virtual_dataset("t2m", layout, fillvalue=np.float32(np.nan))
        finish(file, t2m, f"All years as one variable, read from {len(years)} yearly files")
    unfinished.replace(path)


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, help="the folder ERA5 of the data lake")
    parser.add_argument("--first-year", type=int, default=2011)
    parser.add_argument("--last-year", type=int, default=2020)
    options = parser.parse_args(words)
    if options.first_year > options.last_year:
        parser.error(
            f"--first-year {options.first_year} comes after --last-year {options.last_year}: "
            "write the earlier year first"
        )
    return options


def main(words: list[str] | None = None) -> int:
    """Write what is not there yet; print one line for each file written."""
    options = arguments(words)
    root: Path = options.directory
    virtual = root / "VDS" / "ERA5_0.25.h5"
    ground = surface()
    years: dict[Path, int] = {}
    for year in range(options.first_year, options.last_year + 1):
        path = root / "0.25" / "t2m" / f"t2m_ERA5_{year}.nc"
        if path.exists():
            with h5py.File(path) as file:
                years[path] = file["t2m"].shape[0]
            continue
        years[path] = write_year(path, year, ground)
        virtual.unlink(missing_ok=True)  # it does not know the new year
        print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)")
    if not virtual.exists():
        write_virtual(virtual, years)
        print(f"wrote {virtual} ({sum(years.values())} time steps from {len(years)} files)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
