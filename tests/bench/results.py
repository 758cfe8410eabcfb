"""Keeps tests/bench/RESULTS.md: one section for each benchmark, each rewritten by its own run."""

import datetime
import os
import pathlib

_TITLE = """# Results

What the benchmarks last said, on the machine that each section names. Figures of shared machines vary by several per cent
from run to run; ratios, taken in turns within one run, vary less.
"""


def machine():
    """`2026-01-31, AMD EPYC (family 26, model 2, AVX-512), 2 cores`."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = facts.get("flags", "").split()
    widest = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    name = facts.get("model name", "unknown processor")
    detail = f"family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}, {widest}"
    return f"{datetime.date.today()}, {name} ({detail}), {len(os.sched_getaffinity(0))} cores"


def write_section(path, title, body):
    """Puts `body` under `## title` in place of what is there; at the end when there is none."""
    text = path.read_text() if path.exists() else _TITLE
    head, *sections = text.split("\n## ")
    bodies = dict(section.split("\n", 1) for section in sections)
    bodies[title] = f"\n{body.strip()}\n"
    path.write_text(head.rstrip("\n") + "\n" + "".join(f"\n## {name}\n{text}" for name, text in bodies.items()))
