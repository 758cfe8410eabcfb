#!/usr/bin/env python3
"""Turns core_bench's JSON into build/bench/summary.json and a table.

summary.json is an array of {"name", "value", "unit", "goal", "aim"}: the goal, such as ">= 0.75", must hold, the aim is
wished for; both are null for figures that only inform. A "note" says what was compared where the name does not.
The core's entries that the file already holds are replaced, those of other benchmarks are kept.
Usage: summarize.py core.json summary.json [RESULTS.md]     with the last, also rewrites its section there
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import results

# Name: relation, goal, aim.
BOUNDS = {
    "core/sdpa/f32/T2048/D64/1t/peak_fraction": (">=", 0.75, 0.86),
    "core/sdpa/f32/T2048/D128/1t/peak_fraction": (">=", 0.80, 0.90),
    "core/sdpa/f32/T256/D64/1t/peak_fraction": (">=", 0.65, 0.80),
    "core/sdpa/f32/causal/T4096/D64/1t/peak_fraction": (">=", 0.68, 0.80),
    "core/sdpa/f32/gqa8/T2048/D128/1t/peak_fraction": (">=", 0.78, 0.88),
    "core/sdpa/bf16/T2048/D64/1t/peak_fraction": (">=", 0.70, 0.84),
    "core/sdpa/f32/mask/T2048/D64/1t/peak_fraction": (">=", 0.65, 0.80),
    "core/sdpa/f32/weights/T1024/D64/1t/peak_fraction": (">=", 0.40, 0.60),
    "core/sdpa/f32/cross/T16/S8192/H8/D128/1t/peak_fraction": (">=", 0.75, 0.90),
    "core/sdpa/bf16/cross/T16/S8192/H8/D128/1t/peak_fraction": (">=", 0.75, 0.90),
    "core/sdpa/bf16/T2048/D128/1t/fast_over_exact_f32": (">=", 1.60, 1.85),
    "core/decode/f32/S65536/D128/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/decode/f32/S65536/D128/2t/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/decode/bf16/S65536/D128/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/decode/bf16/S65536/D128/2t/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/decode/f16/S65536/D128/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/decode/f16/S65536/D128/2t/bandwidth_fraction": (">=", 0.85, 0.93),
    "core/scaling/T2048/H8/D64/2t_over_1t": (">=", 1.80, 1.95),
    "core/projection/T512/D768/vs_onednn": (">=", 0.95, 1.10),
    "core/memory/T32768/D64/extra_bytes_over_io": ("<=", 0.10, 0.02),
    "core/tiny/T5/D64/attend_us": ("<=", 12.0, 6.0),
    "core/cancel/sdpa/T8192/D128/longest_ms": ("<=", 5.0, 5.0),
    "core/cancel/sdpa/weights/T4096/D64/longest_ms": ("<=", 5.0, 5.0),
    "core/cancel/sdpa/f64/T2048/D64/longest_ms": ("<=", 5.0, 5.0),
    "core/cancel/projection/T2048/D4096/longest_ms": ("<=", 5.0, 5.0),
}


def judge(value, bounds):
    """Which bounds the value misses."""
    relation, goal, aim = bounds
    meets = (lambda bound: value >= bound) if relation == ">=" else (lambda bound: value <= bound)
    return "" if meets(aim) else "short of aim" if meets(goal) else "MISSED"


def entry(name, value, note):
    relation, goal, aim = BOUNDS.get(name, (None, None, None))
    result = {
        "name": name,
        "value": round(value, 4),
        "unit": "us" if name.endswith("_us") else "ms" if name.endswith("_ms") else "ratio",
        "goal": relation and f"{relation} {goal}",
        "aim": relation and f"{relation} {aim}",
    }
    return result | ({"note": note} if note else {})


def print_row(figure):
    verdict = judge(figure["value"], BOUNDS[figure["name"]]) if figure["goal"] else "informative"
    bounds = f"{figure['goal'] or '':8} {figure['aim'] or '':8}"
    note = f"  ({figure['note']})" if "note" in figure else ""
    print(f"{figure['name']:52} {figure['value']:8.3f} {figure['unit']:6} {bounds} {verdict}{note}")


def read_runs(path):
    """What was measured, and why the rest was not."""
    figures, reasons = [], {}
    with open(path, encoding="utf-8") as file:
        runs = json.load(file)["benchmarks"]
    for run in runs:
        name = run["name"].removesuffix("/iterations:1")
        if run.get("error_occurred"):
            reasons[name] = run["error_message"]
        else:
            figures.append(entry(name, run["value"], run.get("label")))
    return figures, reasons


def others(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [figure for figure in json.load(file) if not figure["name"].startswith("core/")]


def body(figures):
    """Markdown: a line for each figure."""
    rows = [f"| `{f['name']}` | {f['value']:.3g}{'' if f['unit'] == 'ratio' else ' ' + f['unit']} | {f['goal'] or ''} | "
            f"{f['aim'] or ''} |" for f in figures]
    return "\n".join([
        f"{results.machine()}. Written by `make bench-core RESULTS=tests/bench/RESULTS.md`.", "",
        "Fractions are of what this machine did at the same moment: its peak of FLOAT32 multiply-adds on one core, or its",
        "fastest way of reading memory with the same threads. Medians of 11 rounds.", "",
        "| what | figure | must hold | aim |", "|---|---|---|---|", *rows])


def main():
    figures, reasons = read_runs(sys.argv[1])
    print(f"{'name':52} {'value':>8} {'unit':6} {'goal':8} {'aim':8}")
    for figure in figures:
        print_row(figure)
    for name in BOUNDS.keys() - reasons.keys() - {figure["name"] for figure in figures}:
        reasons[name] = "there is no such case"
    for name, reason in sorted(reasons.items()):
        print(f"{name:52} not measured: {reason}")
    summary = others(sys.argv[2]) + figures
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
        file.write("\n")
    if len(sys.argv) > 3:
        results.write_section(pathlib.Path(sys.argv[3]), "The core, against the machine", body(figures))


if __name__ == "__main__":
    main()
