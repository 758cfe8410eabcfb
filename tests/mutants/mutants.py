#!/usr/bin/env python3
"""Would a test notice? Plants small faults in the product, one at a time, and runs the tests that execute the line.

    make mutants [N=100] [FILES=regex] [TESTS=regex] [COMMIT=HEAD] [AGAIN=build/mutants/report.json] [QUICK=1]
    make mutants PLANTED=tests/mutants/off_by_one.toml [TESTS=core] [QUICK=1]

Mutants of a commit are drawn with a seed that its hash gives, so that a run can be repeated: a line of C++ of core/,
server/, client/ or formats/ that has a mutation (mutations.py), all lines alike, then one of its mutations. Each is built
in a git worktree of its own, build/mutants/tree, and the tests that execute its line (covering.py) run, unit tests first,
the fastest first, until one fails; when none does, they run once more with sanitizers (preset `dev`), and for a line of
server/ the tests of its threads, which only the preset `tsan` has. A mutant that does
not compile is counted apart and another one is drawn; so is one that equivalent.toml lists, with the reason why no test can
notice it.

Writes build/mutants/report.txt: the mutants that survived, each with its line before and after and the tests that ran;
and report.json, from which AGAIN=report.json runs the survivors once more, against the commit's tests. Fails when more than
one mutant in twenty survives. A run that was interrupted goes on where it was when it is started again at the same commit.

PLANTED=FILE judges the mutants of a list and no others, for example an off-by-one in each function that decides which keys a
query sees. Fails when one of them survives, does not compile or is no longer in the code. A line that a file has several times
is a mutant at each place. Writes planted.txt and planted.json instead.

QUICK=1 leaves out sanitizers, threads and the few tests that take long, so that a mutant takes a minute and not ten, and more
survive. A run without it, or with AGAIN, judges those survivors.
"""

import argparse
import collections
import fcntl
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import covering
import mutations
import planted
import processes

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
PRODUCT = re.compile(r"^(core|server|client|formats)/.*\.(cc|h)$")
SURVIVORS_ALLOWED = 0.05
BUILD_SECONDS = 4 * 3600  # Of everything, on a busy machine.
# What scripts need that no program of the tree is.
BESIDE_PROGRAMS = ("attend_python_stubs", "attend_client_package", "attend-shell-files", "attend-server-shell-files")


def git(*words):
    return subprocess.run(["git", "-C", ROOT, *words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def key_of(file, before, after):
    return file, " ".join(before.split()), " ".join(after.split())


def read_equivalent(path):
    """{(file, line, mutated line): reason}."""
    entries = tomllib.loads(path.read_text()).get("mutant", [])
    return {key_of(entry["file"], entry["line"], entry["mutated"]): entry["reason"] for entry in entries}


class Mutant:
    def __init__(self, file, text, mutation):
        self.file, self.text, self.mutation = file, text, mutation
        self.line = mutation.line(text)
        self.before, self.after = mutation.lines(text)

    @property
    def key(self):
        return key_of(self.file, self.before, self.after)

    def __str__(self):
        return f"{self.file}:{self.line} [{self.mutation.kind}]\n    - {self.before}\n    + {self.after}"


class Source:
    """The product's files of one tree, and mutants of them."""

    def __init__(self, tree, files):
        self.texts = {file: (tree / file).read_text() for file in files}
        self.by_line = collections.defaultdict(list)
        for file, text in self.texts.items():
            for mutation in mutations.mutations(text):
                self.by_line[file, mutation.line(text)].append(mutation)

    def draw(self, seed):
        """Mutants without end or until there are no more; the same for the same seed and sources."""
        source, left = random.Random(seed), {place: list(found) for place, found in sorted(self.by_line.items())}
        places = list(left)
        while places:
            i = source.randrange(len(places))
            found = left[places[i]]
            mutation = found.pop(source.randrange(len(found)))
            file = places[i][0]
            if not found:
                places[i] = places[-1]
                places.pop()
            yield Mutant(file, self.texts[file], mutation)

    def find(self, file, before, after):
        """The mutant with these lines, or None when the code has changed."""
        if file not in self.texts:
            return None
        found = (Mutant(file, self.texts[file], m) for (f, _), all_ in self.by_line.items() if f == file for m in all_)
        return next((mutant for mutant in found if mutant.key == key_of(file, before, after)), None)


def check_out(commit):
    """Makes TREE the commit's, whatever an earlier run left there."""
    if (TREE / ".git").exists():
        git("-C", str(TREE), "checkout", "--quiet", "--force", "--detach", commit)
    else:
        shutil.rmtree(TREE, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "--quiet", "--detach", str(TREE), commit)


class Build:
    """TREE built with one of the presets, in a folder of its own."""

    def __init__(self, preset, jobs, instrumented):
        self.preset, self.jobs, self.instrumented = preset, jobs, instrumented
        self.folder = TREE / "build" / ("mutants" if instrumented else f"mutants-{preset}")
        self._configured, self._programs = False, []

    def _run(self, command, log, environment=None):
        cache = {"CCACHE_BASEDIR": str(TREE), "CCACHE_NOHASHDIR": "1", "CCACHE_COMPILERCHECK": "content"}
        return processes.run(command, WORK / log, BUILD_SECONDS, TREE, {**cache, **(environment or {})})

    def configure(self):
        """Once, before anything else."""
        if self._configured:
            return
        for name in ("coverage.specs", "instrument.cmake"):  # Where their paths do not change with the mutants' commit.
            if not (WORK / name).exists() or (WORK / name).read_text() != (HERE / name).read_text():
                shutil.copyfile(HERE / name, WORK / name)
        flags = [f"-DCMAKE_PROJECT_INCLUDE={WORK / 'instrument.cmake'}", f"-DATTEND_MUTANTS_SPECS={WORK / 'coverage.specs'}"]
        command = ["cmake", "--preset", self.preset, "-B", self.folder, *(flags if self.instrumented else [])]
        if self._run(command, "configure.txt").code != 0:
            sys.exit(f"the tree cannot be configured: see {WORK}/configure.txt")
        self._configured = True

    def prepare(self, tests):
        """Builds what the tests run, unchanged."""
        targets = sorted({target for test in tests for target in self.targets_of(test)})
        if self._run(["ninja", "-C", self.folder, f"-j{self.jobs}", *targets], "build.txt").code != 0:
            sys.exit(f"the tree without mutants does not build: see {WORK}/build.txt")

    def build(self, targets):
        """Whether a mutant builds. What the cache has of the tree without mutants is used; nothing is put there."""
        command = ["ninja", "-C", self.folder, f"-j{self.jobs}", *targets]
        return self._run(command, "mutant-build.txt", {"CCACHE_READONLY": "1"}).code == 0

    def targets_of(self, test):
        """What one test runs: itself, or for a script all programs of the product and of the tests that are no tests."""
        if test.is_unit:
            return [f"bin/{test.target}"]
        if not self._programs:
            listed = subprocess.run(["ninja", "-C", self.folder, "-t", "targets", "all"], check=True, capture_output=True, text=True)
            programs = re.findall(r"^(bin/[\w-]+): CXX_EXECUTABLE_LINKER", listed.stdout, re.M)
            self._programs = [name for name in programs if not re.search(r"/core_|_test$|_replay$", name)]
        return [*self._programs, *BESIDE_PROGRAMS]


class Trial:
    """Mutants one after another in the same tree."""

    def __init__(self, plain, coverage, *, sanitized=None, threads=None):
        self.plain, self.sanitized, self.threads, self.coverage = plain, sanitized, threads, coverage
        self._sanitized_tests = {}
        self._thread_tests = None

    def run(self, mutant):
        """A dictionary: verdict (killed, survived, uncompilable), the tests that ran, what killed it, the seconds it took."""
        start = time.monotonic()
        tests, executed = self.coverage.of(mutant.file, mutant.line)
        path = TREE / mutant.file
        path.write_text(mutant.mutation.apply(mutant.text))
        try:
            result = self._judge(self.plain, mutant, tests)
            # As `make test` would: with AddressSanitizer and UndefinedBehaviorSanitizer, and with ThreadSanitizer.
            if result["verdict"] == "survived" and self.sanitized is not None:
                result = self._judge(self.sanitized, mutant, self._with_sanitizers(tests))
            if result["verdict"] == "survived" and self.threads is not None and mutant.file.startswith("server/"):
                result = self._judge(self.threads, mutant, self._of_threads())
        finally:
            path.write_text(mutant.text)
        return {"file": mutant.file, "line": mutant.line, "kind": mutant.mutation.kind, "before": mutant.before,
                "after": mutant.after, "executed": executed, "seconds": round(time.monotonic() - start, 1), **result}

    def _with_sanitizers(self, tests):
        self.sanitized.configure()
        if not self._sanitized_tests:
            self._sanitized_tests = {test.name: test for test in covering.list_tests(self.sanitized.folder)}
        found = []
        for plain in tests:
            if plain.name in self._sanitized_tests:
                found.append(self._sanitized_tests[plain.name])
                found[-1].seconds = 10 * plain.seconds
        return found

    def _of_threads(self):
        """What the preset for ThreadSanitizer has and no other: the server against a fake of gRPC."""
        if self._thread_tests is None:
            self.threads.configure()
            known = {test.name for test in self.coverage.tests} | set(self.coverage.left_out)
            self._thread_tests = [test for test in covering.list_tests(self.threads.folder) if test.name not in known]
            for test in self._thread_tests:
                test.seconds = test.timeout / 5
        return self._thread_tests

    def _judge(self, build, mutant, tests):
        # One object of it first, before anything is linked. A header's are seen when the tests are built.
        if mutant.file.endswith(".cc") and not build.build([f"{TREE / mutant.file}^"]):
            return {"verdict": "uncompilable", "ran": []}
        ran = []
        for test in tests:
            if not build.build(build.targets_of(test)):
                return {"verdict": "uncompilable", "ran": ran}
            scratch = WORK / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)
            environment = {**test.environment, "GCOV_PREFIX": str(scratch)}
            outcome = processes.run(test.command, WORK / "test.txt", 60 + 5 * test.seconds, test.cwd, environment)
            ran.append(test.name)
            if not test.passes(outcome):
                how = outcome.describe() + ("" if build is self.plain else ", with sanitizers")
                return {"verdict": "killed", "ran": ran, "by": test.name, "how": how}
        return {"verdict": "survived", "ran": ran}


def run_all(trial, mutants, wanted, equivalent, results):
    """Until `wanted` of the mutants are judged; appends each result to the file `results`, whose earlier ones count. A
    quick trial's survivors are not kept."""
    done = {}
    if results.exists():
        for entry in map(json.loads, results.read_text().splitlines()):
            done[entry["line"], key_of(entry["file"], entry["before"], entry["after"])] = entry
    entries, judged = [], 0
    for mutant in mutants:
        if judged == wanted:
            break
        if mutant.key in equivalent:
            entry = {"verdict": "equivalent", "file": mutant.file, "line": mutant.line, "before": mutant.before,
                     "after": mutant.after, "reason": equivalent[mutant.key]}
        elif (mutant.line, mutant.key) in done:
            entry = done[mutant.line, mutant.key]
        else:
            entry = trial.run(mutant)
            if entry["verdict"] != "survived" or trial.sanitized is not None:
                with open(results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        judged += entry["verdict"] in ("killed", "survived")
        entries.append(entry)
        say(f"{judged}/{wanted} {entry['verdict']} {entry.get('by', '')} ({entry.get('how', '')}) {entry.get('seconds', 0)} s: {mutant}")
    return entries


def report(commit, entries, left_out):
    count = collections.Counter(entry["verdict"] for entry in entries)
    judged = count["killed"] + count["survived"]
    lines = [f"Mutants of {commit}: {judged} judged, {count['killed']} killed, {count['survived']} survived;"
             f" {count['uncompilable']} did not compile, {count['equivalent']} are listed as equivalent.",
             f"Time: {sum(entry.get('seconds', 0) for entry in entries) / 60:.1f} minutes."]
    lines += [f"Left out: {name}: {why}" for name, why in left_out.items()]
    for verdict in ("survived", "equivalent"):
        for entry in (one for one in entries if one["verdict"] == verdict):
            lines += ["", f"{verdict}: {entry['file']}:{entry['line']}", f"    - {entry['before']}", f"    + {entry['after']}"]
            if verdict == "survived":
                lines.append("    " + ("" if entry["executed"] else "no test was seen to execute this line; ")
                             + f"ran: {' '.join(entry['ran']) or 'no test'}")
            else:
                lines.append("    " + " ".join(entry["reason"].split()))
    lines += ["", "killed by: " + ", ".join(f"{name} {n}" for name, n in collections.Counter(
        entry["by"] for entry in entries if entry["verdict"] == "killed").most_common())]
    return "\n".join(lines) + "\n", judged, count["survived"]


def find_planted(path, source, files):
    """Those of the list whose file matches; all must be in the code."""
    found, missing = planted.find(source.texts, [entry for entry in planted.read(path) if files.search(entry[0])])
    if missing:
        sys.exit(f"{path}: no longer in the code: " + "".join(f"\n    {file}: {line}" for file, line, _ in missing))
    if not found:
        sys.exit(f"{path}: no mutant is in a file that matches")
    return [Mutant(*one) for one in found]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--commit", default="HEAD", help="whose mutants, and whose tests")
    parser.add_argument("--files", type=re.compile, default=re.compile(""), help="only files whose path matches")
    parser.add_argument("--tests", type=re.compile, default=re.compile(""), help="only tests whose name or label matches")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--again", type=pathlib.Path, help="the survivors of this report.json instead of a draw")
    instead.add_argument("--planted", type=pathlib.Path, help="the mutants of this list instead of a draw; none may survive")
    parser.add_argument("--quick", action="store_true", help="without sanitizers and without the tests that take long")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="print the draw and do nothing")
    return parser.parse_args()


def main():
    options = parse()
    os.nice(max(0, 10 - os.nice(0)))
    commit = git("rev-parse", "--verify", options.commit + "^{commit}")
    if git("status", "--porcelain", "--untracked-files=no"):
        say("note: what is not committed is not part of the run")
    WORK.mkdir(parents=True, exist_ok=True)
    lock = open(WORK / "lock", "w", encoding="utf-8")  # Held until this process ends.  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run is at work in {WORK}")
    # So that what runs is ended and the tree restored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    check_out(commit)
    files = [file for file in git("-C", str(TREE), "ls-files").splitlines() if PRODUCT.match(file) and options.files.search(file)]
    source, wanted = Source(TREE, files), options.count
    drawn = source.draw(commit)
    if options.again:
        survivors = [entry for entry in json.loads(options.again.read_text())["mutants"] if entry["verdict"] == "survived"]
        drawn = [source.find(entry["file"], entry["before"], entry["after"]) for entry in survivors]
        say(f"{drawn.count(None)} of {len(drawn)} survivors are no longer in the code")
        drawn, wanted = [mutant for mutant in drawn if mutant], len(drawn)
    equivalent, results, name = read_equivalent(HERE / "equivalent.toml"), WORK / f"results-{commit}.jsonl", "report"
    if options.planted:
        drawn = find_planted(options.planted, source, options.files)
        # In files of their own: fewer tests are asked, AGAIN finds none of these, and none counts as equivalent.
        asked = re.sub(r"\W+", "-", options.tests.pattern)
        wanted, equivalent, results, name = len(drawn), {}, WORK / f"planted-{commit}-{asked}.jsonl", "planted"
    if options.list:
        for mutant in itertools.islice(drawn, wanted):
            print(mutant)
        return
    plain = Build("release", options.jobs, instrumented=True)
    sanitized, threads = [None if options.quick else Build(preset, options.jobs, instrumented=False) for preset in ("dev", "tsan")]
    plain.configure()
    tests = covering.list_tests(plain.folder)
    tests = [test for test in tests if any(map(options.tests.search, [test.name, *test.labels]))]
    plain.prepare(tests)
    kept = WORK / "coverage"
    for old in kept.glob("*"):
        if old.name != commit:
            shutil.rmtree(old)
    longest = covering.QUICK_CPU_SECONDS if options.quick else covering.MAX_CPU_SECONDS
    coverage = covering.Coverage(TREE, plain.folder, kept / commit, longest)
    coverage.collect(tests, say)
    trial = Trial(plain, coverage, sanitized=sanitized, threads=threads)
    entries = run_all(trial, drawn, wanted, equivalent, results)
    text, judged, survived = report(commit, entries, coverage.left_out)
    (WORK / f"{name}.txt").write_text(text)
    (WORK / f"{name}.json").write_text(json.dumps({"commit": commit, "mutants": entries}, indent=1) + "\n")
    print(text)
    if options.planted and (left := [entry for entry in entries if entry["verdict"] != "killed"]):
        sys.exit(f"{options.planted}: {len(left)} of {len(entries)} mutants were not noticed: " + "".join(
            f"\n    {entry['file']}:{entry['line']} {entry['verdict']}: {entry['after']}" for entry in left))
    if survived > SURVIVORS_ALLOWED * judged:
        sys.exit(f"{survived} of {judged} mutants survived, more than {SURVIVORS_ALLOWED:.0%}: see {WORK}/report.txt")


if __name__ == "__main__":
    main()
