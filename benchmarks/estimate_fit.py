"""Fits the constants of `edge-resnet estimate` to published measurements, and shows how far off it is.

    python benchmarks/estimate_fit.py            # the constants, and the error of every row
    python benchmarks/estimate_fit.py --write    # and writes the constants to engines/roofline.toml

Least squares on the logarithm of the time, over the rows of `measurements.csv` whose `use` is `fit`. For the error column
"left out" a device's rows are predicted by constants fitted without any row of that device (its power modes together). Rows
whose `use` is `check` take no part in any fit. The printed ranges are the worst of those errors, by generation, and 25 % at
least.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.engines.roofline import Constants, Launch, all_seconds
from edge_resnet.engines.specification import all_hardware
from edge_resnet.launches import architecture_launches

MEASUREMENTS = Path(__file__).with_name("measurements.csv")
CONSTANTS = Path(__file__).resolve().parents[1] / "engines" / "roofline.toml"
GENERATIONS = {"Volta and Turing": (72, 75), "Orin": (87,), "other Ampere and later": (80, 86, 89, 120)}
START = Constants(10_000, 20_000, 0.5)
AIM = 0.25
"""The error that an estimate shall stay within."""
STEP, ROUNDS = 1e-5, 60

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One published measurement."""

    device: str
    power: str
    network: str
    size: int
    precision: str
    batch: int
    ms: float
    use: str

    @property
    def name(self) -> str:
        return f"{self.device} {self.power}, {self.network}, {self.precision}, batch {self.batch}"


def read_rows(uses: Sequence[str] = ("fit", "check")) -> list[Row]:
    """The rows of these uses."""
    with MEASUREMENTS.open(encoding="utf-8", newline="") as file:
        found = [line for line in csv.DictReader(file) if line["use"] in uses]
    return [
        Row(
            line["device"],
            line["power"],
            line["network"],
            int(line["size"]),
            line["precision"],
            int(line["batch"]),
            float(line["ms"]),
            line["use"],
        )
        for line in found
    ]


@cache
def network(name: str, size: int) -> tuple[Launch, ...]:
    """The launches of a network for one image."""
    return architecture_launches(name, size)


def predicted_ms(row: Row, constants: Constants) -> float:
    hardware = all_hardware()[row.device]
    launches = [launch.batched(row.batch) for launch in network(row.network, row.size)]
    return 1e3 * sum(all_seconds(launches, hardware.at(hardware.mode(row.power)), row.precision, constants))


def fit(rows: Sequence[Row]) -> Constants:
    """Levenberg-Marquardt on the logarithms of constants and times."""

    def residuals(logs: Vector) -> Vector:
        constants = Constants(*np.exp(logs))
        return np.array([np.log(predicted_ms(row, constants) / row.ms) for row in rows])

    logs, damping = np.log(np.array(astuple(START))), 1e-2
    error = residuals(logs)
    for _ in range(ROUNDS):
        columns = [(residuals(logs + STEP * unit) - error) / STEP for unit in np.eye(len(logs))]
        slope = np.stack(columns, axis=1)
        normal = slope.T @ slope
        change = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), -slope.T @ error)
        tried = residuals(logs + change)
        if tried @ tried < error @ error:
            logs, error, damping = logs + change, tried, damping / 3
        else:
            damping *= 4
        if np.abs(change).max() < 1e-9:
            break
    return Constants(*(float(value) for value in np.exp(logs)))


def errors_left_out(rows: Iterable[Row], fitted: Constants) -> dict[Row, float]:
    """Predicted over measured time, less one, of every row, by constants that its device had no part in."""
    every = list(rows)
    used = [row for row in every if row.use == "fit"]
    found: dict[Row, float] = {}
    for device in dict.fromkeys(row.device for row in every):
        own = [row for row in used if row.device != device]
        constants = fit(own) if len(own) < len(used) else fitted
        found |= {row: predicted_ms(row, constants) / row.ms - 1 for row in every if row.device == device}
    return found


def spread(errors: dict[Row, float], sms: Sequence[int]) -> tuple[float, float]:
    """Measured over predicted time, least and most, of a generation's devices; few rows promise no less than the aim."""
    ratios = [1 / (1 + AIM), 1 + AIM] + [
        1 / (1 + error) for row, error in errors.items() if all_hardware()[row.device].sm in sms
    ]
    return min(ratios), max(ratios)


def as_toml(constants: Constants, errors: dict[Row, float]) -> str:
    lines = [
        "# Written by `python benchmarks/estimate_fit.py --write`; docs/estimate.md says what it means.",
        f"overhead_clocks = {constants.overhead_clocks:.1f}",
        f"overhead_clocks_before_ampere = {constants.overhead_clocks_before_ampere:.1f}",
        f"efficiency = {constants.efficiency:.4f}",
    ]
    for name, sms in GENERATIONS.items():
        low, high = spread(errors, sms)
        lines += ["", f"# Measured over estimated time: {name}.", "[[range]]", f"sms = {list(sms)}"]
        lines += [f"low = {low:.3f}", f"high = {high:.3f}"]
    return "\n".join(lines) + "\n"


def table_line(row: Row, fitted: Constants, left_out: float) -> str:
    """A row of the table in docs/estimate.md."""
    own = f"{predicted_ms(row, fitted) / row.ms - 1:+.0%}" if row.use == "fit" else "no part"
    return f"| {row.name} | {row.ms:.3f} | {own} | {left_out:+.0%} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--write", action="store_true", help=f"write {CONSTANTS.name}")
    write: bool = arguments.parse_args().write
    rows = read_rows()
    used = [row for row in rows if row.use == "fit"]
    fitted = fit(used)
    errors = errors_left_out(rows, fitted)
    print(as_toml(fitted, errors))
    print("| measured | ms | fitted | left out |\n|---|---|---|---|")
    print("\n".join(table_line(row, fitted, error) for row, error in errors.items()))
    for use in ("fit", "check"):
        off = np.array([abs(error) for row, error in errors.items() if row.use == use])
        print(f"\n{use}: {(off <= AIM).sum()} of {len(off)} rows within {AIM:.0%} when left out, worst {off.max():.0%}")
    if write:
        CONSTANTS.write_text(as_toml(fitted, errors), encoding="utf-8")


if __name__ == "__main__":
    main()
