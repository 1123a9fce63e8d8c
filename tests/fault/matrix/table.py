# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as a table: one row for each fault, one column for each point."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

# Of what is said about a cell; the output has the rest.
LONGEST = 400


def read(path: Path) -> t.List[t.Dict[str, t.Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def markdown(results: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """All cells, the ones that did not hold in words below."""
    points = list(dict.fromkeys(one["cell"]["point"] for one in results))
    faults = list(dict.fromkeys(one["cell"]["fault"] for one in results))
    lines = ["| | " + " | ".join(f"{number}" for number in range(1, len(points) + 1)) + " |", "|---|" + "---|" * len(points)]
    for fault in faults:
        row = []
        for point in points:
            here = [one for one in results if (one["cell"]["point"], one["cell"]["fault"]) == (point, fault)]
            held = sum(bool(one["held"]) for one in here)
            row.append("" if not here else f"{held}" if held == len(here) else f"**{held} of {len(here)}**")
        lines.append(f"| {fault} | " + " | ".join(row) + " |")
    lines += ["", *(f"{number}. {point}" for number, point in enumerate(points, 1))]
    held = sum(bool(one["held"]) for one in results)
    lost = sum(sum(one["lost"].values()) for one in results)
    excused = sum(sum(one["excused"].values()) for one in results)
    lines += [
        "",
        f"{held} of {len(results)} cells held; {lost} requests were lost, and {excused} where the fault itself had cut the user off.",
    ]
    lines += [f"- {one['key']}: {' '.join('; '.join(one['why']).split())[:LONGEST]}" for one in results if not one["held"]]
    return "\n".join(lines) + "\n"
