"""The client library as others get it: installed, found by CMake, linked into their program, and calling a server."""

import os
import pathlib
import subprocess
import tempfile
import unittest

from attend_testing.server import BUILD_DIR, SOURCE_DIR, Server

CMAKE = os.environ.get("CMAKE_COMMAND", "cmake")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


class InstallTest(unittest.TestCase):
    def test_a_program_of_somebody_else_finds_builds_links_and_calls(self):
        with tempfile.TemporaryDirectory(prefix="attend-install-") as directory:
            prefix, build = pathlib.Path(directory, "prefix"), pathlib.Path(directory, "build")
            run(CMAKE, "--install", BUILD_DIR, "--component", "development", "--prefix", prefix)
            self.check_self_contained(prefix)
            consumer = SOURCE_DIR / "tests" / "client" / "consumer"
            run(CMAKE, "-S", consumer, "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
            run(CMAKE, "--build", build)
            with Server() as server:
                self.assertEqual(run(build / "consumer", server.address), "output float32 [2, 3] of 1\nlayer consumer\n")

    def check_self_contained(self, prefix):
        """What is installed points at nothing of this tree, and the client brings nothing of the core."""
        targets = "".join(path.read_text() for path in prefix.rglob("attendTargets*.cmake"))
        self.assertIn("attend::client", targets)
        for stranger in (str(SOURCE_DIR), str(BUILD_DIR), "attend_core", "Eigen", "hwy"):
            self.assertNotIn(stranger, targets)
        headers = {str(path.relative_to(prefix)) for path in prefix.rglob("*.h")}
        for header in ("client", "layer_client"):
            self.assertIn(f"include/attend/client/lib/{header}.h", headers)
        self.assertEqual([name for name in headers if "/core/" in name or "/server/" in name], [])
        self.assertFalse((prefix / "bin").exists(), "programs are another component")


if __name__ == "__main__":
    unittest.main()
