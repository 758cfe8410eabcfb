"""The official clients of Connect, for Node and for browsers (over Node's fetch), against the HTTP door: main.mjs says what they do.

Their packages are fetched from npm into build/connect, as package-lock.json pins them. Run by `make test-clients`.
"""

import os
import pathlib
import shutil
import subprocess
import unittest

from attend_testing.http_door import FLAGS
from attend_testing.server import BUILD_DIR, SOURCE_DIR, ServerTestCase

HERE = pathlib.Path(__file__).resolve().parent
PROTOS = ("attend/v1/tensor.proto", "attend/v1/attention_service.proto", "google/rpc/error_details.proto")
EXPECTED = (
    "values true, timing true, code InvalidArgument, reason INVALID_FIELD attend.v1, field key.shape, "
    "late DeadlineExceeded, left Canceled, version true"
)


def run(*command, folder):
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


class ConnectClientsTest(ServerTestCase):
    FLAGS = FLAGS

    def test_both_clients_in_both_forms(self):
        folder = BUILD_DIR / "connect"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE, folder)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=folder)
        protoc = (os.environ["ATTEND_PROTOC"], f"-I{SOURCE_DIR}/proto", "--include_imports", "--descriptor_set_out=attend.binpb")
        run(*protoc, *PROTOS, folder=folder)
        output = run("node", "main.mjs", f"http://127.0.0.1:{self.server.http_port}", "attend.binpb", folder=folder)
        forms = [f"{client} {form}" for form in ("json", "proto") for client in ("node", "web")]
        self.assertEqual(output.strip().split("\n"), [f"{form}, {EXPECTED}" for form in forms])


if __name__ == "__main__":
    unittest.main()
