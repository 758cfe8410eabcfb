"""scripts/sbom.py over a real dpkg database, this machine's: dpkg itself says what must be in it."""

import json
import pathlib
import subprocess
import sys
import unittest

from attend_testing.server import SOURCE_DIR

STATUS = pathlib.Path("/var/lib/dpkg/status")


def sbom(status, created="1700000000"):
    command = [sys.executable, SOURCE_DIR / "scripts" / "sbom.py", "--version", "1.2.3", "--revision", "abc", "--created", created]
    return subprocess.run(command, input=status, capture_output=True, text=True, check=False)


class SbomTest(unittest.TestCase):
    def test_every_installed_package_is_in_it_once_with_its_version(self):
        told = json.loads(sbom(STATUS.read_text()).stdout)
        query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"]
        lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
        expected = sorted(tuple(line.split()[1:]) for line in lines if line.startswith("installed "))
        debian = [entry for entry in told["packages"] if entry.get("supplier") == "Organization: Debian"]
        got = sorted((e["name"], e["versionInfo"], e["SPDXID"].removeprefix("SPDXRef-").rsplit("-", 1)[1]) for e in debian)
        self.assertEqual(got, expected)

    def test_it_is_one_whole(self):
        told = json.loads(sbom(STATUS.read_text()).stdout)
        identifiers = [entry["SPDXID"] for entry in told["packages"]]
        self.assertEqual(len(identifiers), len(set(identifiers)))
        related = {relation["relatedSpdxElement"] for relation in told["relationships"]}
        self.assertEqual(related, set(identifiers))
        self.assertEqual((told["spdxVersion"], told["creationInfo"]["created"]), ("SPDX-2.3", "2023-11-14T22:13:20Z"))
        (attend,) = [entry for entry in told["packages"] if entry["name"] == "attend"]
        self.assertEqual((attend["versionInfo"], attend["licenseDeclared"]), ("1.2.3", "Apache-2.0"))

    def test_the_same_input_gives_the_same_bytes_and_another_another_name(self):
        status = STATUS.read_text()
        self.assertEqual(sbom(status).stdout, sbom(status).stdout)
        names = {json.loads(sbom(status, created).stdout)["documentNamespace"] for created in ("1", "2")}
        self.assertEqual(len(names), 2)

    def test_what_is_no_database_is_refused(self):
        for status in ("", "Package: a\n", "Package: a\nStatus: install ok installed\nArchitecture: all\n"):
            with self.subTest(status):
                run = sbom(status)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn("ValueError", run.stderr)

    def test_a_removed_package_is_not_in_it(self):
        one = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\nDescription: x\n Version: 9\n"
        two = "Package: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n"
        told = json.loads(sbom(f"{one}\n{two}").stdout)
        self.assertEqual([(e["name"], e["versionInfo"]) for e in told["packages"][2:]], [("a", "1")])


if __name__ == "__main__":
    unittest.main()
