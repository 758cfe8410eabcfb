"""Which tests execute a line of the product.

Every test runs once in the unchanged, instrumented build (instrument.cmake), with its counters in a folder of its own
(GCOV_PREFIX, which the servers that it starts inherit). gcov then says for each object file which lines were executed;
it is asked only for the objects that a mutant's file is compiled into, and remembers.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import processes

# Tests of more processor time than this are not run for each mutant.
QUICK_CPU_SECONDS = 15  # For a quick trial.
MAX_CPU_SECONDS = 150
# They test what is deployed, or build things themselves; no mutant changes what they judge.
_LEFT_OUT = re.compile(r"^(image|deploy|bench|tools)$")
_MAX_MULTI_LINE = 12  # Lines of one statement, of which gcov counts only the first.


def _environment(properties):
    """{variable: value} of a test's own."""
    own = dict(entry.split("=", 1) for entry in properties.get("ENVIRONMENT", []))
    for entry in properties.get("ENVIRONMENT_MODIFICATION", []):
        name, change = entry.split("=", 1)
        how, value = change.split(":", 1)
        if how != "path_list_prepend":
            raise ValueError(f"{entry}: not a change that this script knows")
        own[name] = os.pathsep.join(filter(None, (value, own.get(name) or os.environ.get(name))))
    return own


class Test:
    """One of ctest's tests."""

    def __init__(self, description, command, build):
        properties = {entry["name"]: entry["value"] for entry in description.get("properties", [])}
        self.name, self.command = description["name"], list(command)
        self.labels = properties.get("LABELS", [])
        self.cwd = properties.get("WORKING_DIRECTORY", str(build))
        self.timeout = float(properties.get("TIMEOUT", 300))
        self.skip_code = properties.get("SKIP_RETURN_CODE")
        self.environment = _environment(properties)
        self.is_unit = pathlib.Path(self.command[0]).parent == build / "bin"
        self.is_script = pathlib.Path(self.command[0]).name.startswith("python")
        self.seconds = self.cpu_seconds = 0.0
        if self.is_unit:
            self.environment["GTEST_FAIL_FAST"] = "1"
        elif self.is_script and "unittest.main" in pathlib.Path(self.command[1]).read_text():
            self.command.append("--failfast")

    @property
    def target(self):
        """The executable that is the test, or None for a script."""
        return pathlib.Path(self.command[0]).name if self.is_unit else None

    def passes(self, outcome):
        return outcome.code == 0 or (outcome.code is not None and outcome.code == self.skip_code)

    def order(self):
        """Unit tests first, each kind by the processor time it takes."""
        return not self.is_unit, self.cpu_seconds


def _commands(build):
    """{test: command}, from CMake's own files: `ctest --show-only` has none for an executable that is not built yet."""
    found = {}
    for file in build.rglob("CTestTestfile.cmake"):
        for name, words in re.findall(r'^add_test\((?:\[=\[)?([^\s"\]]+)(?:\]=\])? (.*)\)$', file.read_text(), re.M):
            found[name] = re.findall(r'"([^"]*)"', words)
    return found


def list_tests(build):
    """Of a configured build, whether or not anything is built."""
    run = subprocess.run(["ctest", "--show-only=json-v1"], cwd=build, check=True, capture_output=True, text=True)
    commands = _commands(build)
    tests = [Test(entry, commands[entry["name"]], build) for entry in json.loads(run.stdout)["tests"] if entry["name"] in commands]
    return [test for test in tests if (test.is_unit or test.is_script) and not any(map(_LEFT_OUT.match, test.labels))]


class Coverage:
    """Of one commit's build. `folder` keeps counters and outcomes, so that a second run of the same commit starts at once."""

    def __init__(self, tree, build, folder, max_cpu_seconds):
        self.tree, self.build, self.folder, self.max_cpu_seconds = tree, build, folder, max_cpu_seconds
        self.tests, self.left_out = [], {}  # Left out: test name -> why.
        self._objects = self._read_objects()
        self._lines = {}  # (test name, object) -> {file: {line: count}}

    def collect(self, tests, say):
        """Runs those of the tests that have not been run for this commit."""
        self._keep_notes()
        for test in tests:
            outcome = self._outcome(test, say)
            test.seconds, test.cpu_seconds = outcome["seconds"], outcome["cpu_seconds"]
            if not outcome["passed"]:
                self.left_out[test.name] = "fails without any mutation: " + outcome["how"]
            elif test.cpu_seconds > self.max_cpu_seconds:
                self.left_out[test.name] = f"takes {test.cpu_seconds:.0f} s of processor time"
            else:
                self.tests.append(test)
        self.tests.sort(key=Test.order)

    def _keep_notes(self):
        """gcov needs the notes of the unchanged objects, which mutants overwrite. REQUIRES: the build is unchanged."""
        for note in self.build.rglob("*.gcno"):
            copy = self.folder / "notes" / note.relative_to(self.build)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                shutil.copyfile(note, copy.with_suffix(".part"))
                copy.with_suffix(".part").rename(copy)

    def _outcome(self, test, say):
        kept = self.folder / "outcomes" / f"{test.name}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        counters = self.folder / "counters" / test.name
        shutil.rmtree(counters, ignore_errors=True)
        for folder in (counters, kept.parent, self.folder / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        environment = {**test.environment, "GCOV_PREFIX": str(counters), "GCOV_PREFIX_STRIP": str(len(self.build.parts) - 1)}
        found = processes.run(test.command, self.folder / "logs" / f"{test.name}.txt", 4 * test.timeout, test.cwd, environment)
        outcome = {"passed": test.passes(found), "how": found.describe(), "seconds": found.seconds,
                   "cpu_seconds": found.cpu_seconds}
        say(f"covers: {test.name}: {found.describe()}, {found.seconds:.1f} s, of a processor {found.cpu_seconds:.1f} s")
        kept.write_text(json.dumps(outcome))
        return outcome

    def _read_objects(self):
        """{file of the tree: objects compiled from it or from what includes it}, as ninja recorded them."""
        run = subprocess.run(["ninja", "-C", self.build, "-t", "deps"], check=True, capture_output=True, text=True)
        objects, current = collections.defaultdict(list), None
        for line in run.stdout.splitlines():
            if line.startswith("    "):
                path = pathlib.Path(os.path.normpath(self.build / line.strip()))
                if path.is_relative_to(self.tree) and not path.is_relative_to(self.build):
                    objects[str(path.relative_to(self.tree))].append(current)
            elif ": #deps" in line:
                current = line.split(":", 1)[0]
        return objects

    def includers(self, file):
        """Names of the executables that are tests and whose own source includes `file`."""
        return {match[1] for one in self._objects.get(file, ()) if (match := re.search(r"^tests/.*CMakeFiles/([^/]+)\.dir/", one))}

    def of(self, file, line):
        """(tests that execute the line, fastest first; whether one was seen to). Without one: those that enter the file."""
        objects = [one for one in self._objects.get(file, ()) if (self.folder / "notes" / one).with_suffix(".gcno").exists()]
        pairs = [(test, one) for test in self.tests for one in objects]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            counted = list(pool.map(lambda pair: self._counts(*pair).get(file, {}), pairs))
        counts = collections.defaultdict(collections.Counter)  # Test name -> line -> count
        for (test, _), lines in zip(pairs, counted, strict=True):
            counts[test.name].update(lines)
        known = {one for lines in counts.values() for one in lines}
        start = next((one for one in range(line, line - _MAX_MULTI_LINE, -1) if one in known), None)
        names = {name for name, lines in counts.items() if start is not None and lines[start] > 0}
        seen = bool(names)
        if not seen:
            names = {name for name, lines in counts.items() if any(lines.values())}
        if file.endswith(".h"):
            names |= self.includers(file)
            if not known:  # Constants and types alone: whoever enters what includes them.
                names |= {test.name for test, one in pairs if self._counts(test, one)}
        return [test for test in self.tests if test.name in names or test.target in names], seen

    def _counts(self, test, one):
        key = (test.name, one)
        if key not in self._lines:
            self._lines[key] = self._ask_gcov(test, one)
        return self._lines[key]

    def _ask_gcov(self, test, one):
        """{file: {line: count}} of one object, of lines that were counted at all; {} when nothing in it was executed."""
        counter = (self.folder / "counters" / test.name / one).with_suffix(".gcda")
        # CMake writes a.cc.o, the compiler a.cc.gcda.
        if not counter.exists():
            return {}
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            os.symlink(counter, pathlib.Path(scratch, "object.gcda"))
            os.symlink((self.folder / "notes" / one).with_suffix(".gcno"), pathlib.Path(scratch, "object.gcno"))
            run = subprocess.run(["gcov", "--json-format", "--stdout", "object.gcda"], cwd=scratch, check=True,
                                 capture_output=True, text=True)
        found = {}
        for report in map(json.loads, filter(None, run.stdout.splitlines())):
            for entry in report["files"]:
                path = pathlib.Path(os.path.normpath(os.path.join(report["current_working_directory"], entry["file"])))
                if path.is_relative_to(self.tree):
                    lines = found.setdefault(str(path.relative_to(self.tree)), collections.Counter())
                    for line in entry["lines"]:  # A template's line occurs once for each instance.
                        lines[line["line_number"]] += line["count"]
        return found if any(count for lines in found.values() for count in lines.values()) else {}
