#!/usr/bin/env python3
"""Turns core_bench's JSON into build/bench/summary.json and a table.

summary.json is an array of {"name", "value", "unit", "goal"}; a goal is a bound such as ">= 0.75".
Entries of other benchmarks that the file already holds are kept.
Usage: summarize.py core.json summary.json
"""

import json
import os
import sys

GOALS = {
    "core/sdpa/f32/T2048/D64/1t/peak_fraction": (">=", 0.75),
    "core/sdpa/f32/T2048/D128/1t/peak_fraction": (">=", 0.80),
    "core/sdpa/f32/T256/D64/1t/peak_fraction": (">=", 0.65),
    "core/sdpa/f32/causal/T4096/D64/1t/peak_fraction": (">=", 0.68),
    "core/sdpa/f32/gqa8/T2048/D128/1t/peak_fraction": (">=", 0.78),
    "core/sdpa/f32/mask/T2048/D64/1t/peak_fraction": (">=", 0.65),
    "core/sdpa/f32/weights/T1024/D64/1t/peak_fraction": (">=", 0.40),
    "core/decode/f32/S65536/D128/bandwidth_fraction": (">=", 0.80),
    "core/decode/f32/S65536/D128/2t/bandwidth_fraction": (">=", 0.80),
    "core/scaling/T2048/H8/D64/2t_over_1t": (">=", 1.80),
    "core/projection/T512/D768/peak_fraction": (">=", 0.85),
    "core/memory/T32768/D64/extra_bytes_over_io": ("<=", 0.10),
    "core/tiny/T5/D64/attend_us": ("<=", 12.0),
}


def unit(name):
    return "us" if name.endswith("_us") else "ratio"


def met(value, goal):
    kind, bound = goal
    return value >= bound if kind == ">=" else value <= bound


def others(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [entry for entry in json.load(file) if entry["name"] not in GOALS]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        runs = json.load(file)["benchmarks"]
    summary = others(sys.argv[2])
    for run in runs:
        name = run["name"].removesuffix("/iterations:1")
        goal, value = GOALS[name], run["value"]
        summary.append({"name": name, "value": round(value, 4), "unit": unit(name), "goal": f"{goal[0]} {goal[1]}"})
        verdict = "" if met(value, goal) else "  missed"
        print(f"{name:50} {value:8.3f} {unit(name):6} {goal[0]} {goal[1]}{verdict}")
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
