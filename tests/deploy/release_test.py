"""scripts/release.sh makes no release that is not what it says it is."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE_DIR = pathlib.Path(os.environ["ATTEND_SOURCE_DIR"])
NEEDED = ("CMakeLists.txt", "CHANGELOG.md", "scripts/release.sh", "tests/proto", "proto")
IDENTITY = {f"GIT_{role}_{what}": "test@attend" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class ReleaseTest(unittest.TestCase):
    """Each test changes one thing in a scratch repository of version 7.8.9 that may be released."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="attend-release-")
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        for name in NEEDED:
            source, target = SOURCE_DIR / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self.write("CMakeLists.txt", "project(attend VERSION 7.8.9 LANGUAGES CXX)\n")
        self.write("CHANGELOG.md", "# Changelog\n\n## [7.8.9] - 2031-02-03\n\n### Added\n- All.\n\n## [7.8.8] - 2031-01-01\n")
        self.git("init", "--quiet")
        self.commit()

    def write(self, name, text):
        (self.root / name).write_text(text)

    def git(self, *words):
        environment = os.environ | IDENTITY | {"GIT_CONFIG_GLOBAL": os.devnull}
        return subprocess.run(["git", *words], cwd=self.root, env=environment, check=True, capture_output=True, text=True).stdout

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A state")

    def release(self):
        command = [self.root / "scripts" / "release.sh", "--dry-run"]
        environment = {name: value for name, value in os.environ.items() if name != "ATTEND_SOURCE_DIR"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def assert_refused(self, *needles):
        run = self.release()
        self.assertEqual(run.returncode, 1, run.stdout)
        for needle in needles:
            self.assertIn(needle, run.stderr)

    def test_what_agrees_may_be_released_and_a_dry_run_makes_nothing(self):
        run = self.release()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("7.8.9", run.stdout)
        self.assertIn("v7.8.9", run.stdout)
        for artefact in ("source", "binaries", "Debian packages", "arm64", "Python package", "image", "checksums"):
            self.assertIn(artefact, run.stdout)
        self.assertEqual(self.git("tag"), "")
        self.assertEqual(self.git("status", "--porcelain"), "")
        self.assertFalse((self.root / "build").exists())

    def test_a_tree_with_changes_is_refused(self):
        self.write("left over", "")
        self.assert_refused("not clean")

    def test_a_changelog_without_the_version_is_refused(self):
        for first in ("## [Unreleased]", "## [7.8.8] - 2031-01-01", "## [7.8.90] - 2031-02-03", "## [7.8.9]", "## [7x8x9] - 2031-02-03"):
            with self.subTest(first):
                self.write("CHANGELOG.md", f"# Changelog\n\n{first}\n\n## [7.8.9] - 2031-02-03\n")
                self.commit()
                self.assert_refused("CHANGELOG.md", first, "7.8.9")

    def test_a_tag_that_exists_is_refused(self):
        self.git("tag", "v7.8.9")
        self.assert_refused("v7.8.9", "exists")

    def test_a_protocol_that_the_baseline_does_not_hold_is_refused(self):
        file = self.root / "proto" / "attend" / "v1" / "tensor.proto"
        file.write_text(file.read_text() + "\n// New.\nmessage Unrecorded {}\n")
        self.commit()
        self.assert_refused("attend/v1/tensor.proto", "make baseline")


if __name__ == "__main__":
    unittest.main()
