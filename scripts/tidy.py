#!/usr/bin/env python3
"""Runs clang-tidy on the project's C++, and passes over what was clean before.

    scripts/tidy.py BUILD ... [--jobs N] [--files FILE ...]    BUILD: folders with compile_commands.json; the first that
                                                         names a file counts. Default: every .cc that git knows.

clang-tidy takes seconds for a file. What it says follows from the source, the headers it includes, the .clang-tidy files
above it, the compiler's flags and clang-tidy itself; the cache remembers the hash of all that for files without a finding.
It is in $ATTEND_TIDY_CACHE (~/.cache/attend-tidy), serves every checkout, and forgets what was not asked for in 60 days.
"""

import argparse
import concurrent.futures
import functools
import gzip
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CACHE = pathlib.Path(os.environ.get("ATTEND_TIDY_CACHE") or pathlib.Path.home() / ".cache" / "attend-tidy")
TIDY = "clang-tidy-14"
REMEMBERED = 8  # Versions of a file.
# Files that no build of the project compiles, each with the reason.
NOT_COMPILED = {
    "tests/bench/core/onednn_projection.cc": "needs oneDNN, which `make deps` does not install",
}


@functools.cache
def content(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def relative(text):
    return text.replace(str(ROOT), ".")


class Unit:
    """A translation unit, with the build folder that says how to compile it."""

    def __init__(self, source, build, directory, command):
        self.source, self.build, self.directory = source, build, directory
        words = shlex.split(command)
        while words and not words[0].endswith(("clang++-14", "clang++")):  # A compiler cache.
            words = words[1:]
        at = words.index("-o")
        self.flags = words[:at] + words[at + 3 :]  # Without `-o OBJECT -c`; the source is the last word.

    def key(self):
        """What must be the same for an entry of the cache to be about this file at all."""
        configurations = [folder / ".clang-tidy" for folder in (ROOT / self.source).parents if folder.is_relative_to(ROOT)]
        said = [tool_version(), self.source, relative(shlex.join(self.flags))]
        said += [file.read_text() for file in configurations if file.exists()]
        return hashlib.sha256("\0".join(said).encode()).hexdigest()

    def includes(self):
        """Every file that the preprocessor reads, those of the project without its folder."""
        run = subprocess.run([*self.flags, "-M", "-MT", "x"], cwd=self.directory, check=True, capture_output=True, text=True)
        words = run.stdout.replace("\\\n", " ").split()[1:]
        return sorted({relative(os.path.normpath(os.path.join(self.directory, word))) for word in words})

    def tidy(self):
        command = [TIDY, "--quiet", "-p", str(self.build), str(ROOT / self.source)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        noise = [line for line in run.stderr.splitlines() if not line.endswith(("warning generated.", "warnings generated."))]
        return run.returncode == 0, run.stdout + "\n".join(noise)


@functools.cache
def tool_version():
    return subprocess.run([TIDY, "--version"], check=True, capture_output=True, text=True).stdout


def digest(files):
    """One hash of all the files' contents; None when one of them is gone."""
    try:
        return hashlib.sha256("".join(content(ROOT / file) for file in files).encode()).hexdigest()
    except OSError:
        return None


def recall(entry):
    """[[files, digest]], the newest first."""
    try:
        return json.loads(gzip.decompress(entry.read_bytes()))
    except (OSError, ValueError, EOFError):
        return []


def check(unit):
    """(whether it was passed over, whether it is clean, what clang-tidy said)."""
    entry = CACHE / f"{unit.key()}.json.gz"
    known = recall(entry)
    if any(digest(files) == seen for files, seen in known):
        os.utime(entry)
        return True, True, ""
    clean, said = unit.tidy()
    if clean:
        files = unit.includes()
        scratch = entry.with_suffix(f".{os.getpid()}.{hash(unit.source)}")
        scratch.write_bytes(gzip.compress(json.dumps([[files, digest(files)], *known][:REMEMBERED]).encode(), mtime=0))
        scratch.replace(entry)
    return False, clean, said


def units(builds, wanted):
    found = {}
    for build in builds:
        for entry in json.loads((build / "compile_commands.json").read_text()):
            source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), ROOT)
            if source in wanted and source not in found:
                found[source] = Unit(source, build, entry["directory"], entry["command"])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("builds", nargs="+", type=pathlib.Path)
    parser.add_argument("--files", nargs="+", help="only these")
    options = parser.parse_args()

    tracked = subprocess.run(["git", "ls-files", "*.cc"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    wanted = set(options.files or tracked) - set(NOT_COMPILED)
    CACHE.mkdir(parents=True, exist_ok=True)
    for entry in CACHE.iterdir():
        if entry.stat().st_mtime < time.time() - 60 * 86400:
            entry.unlink()

    found = units([build.resolve() for build in options.builds], wanted)
    failed = sorted(wanted - set(found))
    for source in failed:
        print(f"{source}: no build compiles it, so nothing checks it; see NOT_COMPILED in scripts/tidy.py")
    passed_over = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for unit, (known, clean, said) in zip(found.values(), pool.map(check, found.values()), strict=True):
            passed_over += known
            if not clean:
                failed.append(unit.source)
                print(said, flush=True)
    print(f"clang-tidy: {len(found)} files, {passed_over} of them clean before and unchanged, {len(failed)} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
