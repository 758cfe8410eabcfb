"""A new virtual environment with the Python package's wheel in it, and what it needs from the Python package index."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from attend_testing.server import SOURCE_DIR

if "CI" in os.environ:  # Where it must not be left out, an index that is away for a minute is waited for.
    os.environ.setdefault("PIP_RETRIES", "8")


class CleanEnvironmentTestCase(unittest.TestCase):
    """Where the package index cannot be reached, CI fails; elsewhere the tests are left out with a message."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        built = subprocess.run([SOURCE_DIR / "scripts" / "python-package.sh"], capture_output=True, text=True, check=False)
        if built.returncode != 0:
            cls.fail_or_skip(built.stderr)
        cls.wheel = pathlib.Path(built.stdout.strip())
        subprocess.run([sys.executable, "-m", "venv", cls.directory / "venv"], check=True)
        cls.bin = cls.directory / "venv" / "bin"
        cls.pip("install", cls.wheel)

    @staticmethod
    def fail_or_skip(message):
        if "CI" not in os.environ and ("Could not find a version" in message or "No matching distribution" in message):
            raise unittest.SkipTest(f"the Python package index cannot be reached:\n{message}")
        raise AssertionError(message)

    @classmethod
    def pip(cls, *arguments):
        command = [cls.bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            cls.fail_or_skip(result.stderr)

    def run_in(self, command, timeout=120, **environment):
        """What the command, a program of the environment and its arguments, writes to stdout."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ATTEND_"))}
        result = subprocess.run(
            [self.bin / command[0], *command[1:]], cwd=self.directory, env=inherited | environment,
            capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout
