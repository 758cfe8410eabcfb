"""Programs in Go, Java and Python that use attend's generated code and their language's own classes of google.rpc.

Each computes once, is refused once and prints what the refusal says, so that a clash of the two kinds of classes, or a detail
that the language's classes cannot read, fails. Builds fetch from the languages' package registries into build/languages.
Run by `make test-languages`.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

from attend_testing.server import BUILD_DIR, SOURCE_DIR, ServerTestCase

HERE = pathlib.Path(__file__).resolve().parent
OUT = BUILD_DIR / "languages"
PROTOC = os.environ["ATTEND_PROTOC"]
PROTOS = [f"attend/v1/{name}.proto" for name in ("tensor", "attention_service", "layer_service")]
# A build may have to fetch a hundred megabytes.
PATIENCE = 600

EXPECTED = {"output": "2", "code": "3", "reason": "INVALID_FIELD attend.v1", "field": "key.shape"}


def run(*command, folder, path=None):
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def fresh(name):
    """build/languages/NAME with what is in tests/languages/NAME; what was fetched before is kept elsewhere."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / name, folder)
    return folder


def said(output):
    """{"output": "2", ...}, without the colours that Maven sets and resets."""
    return dict(line.split(" ", 1) for line in re.sub(r"\x1b\[\d*m", "", output).split("\n") if line)


class LanguagesTest(ServerTestCase):
    def test_go(self):
        path = run(SOURCE_DIR / "scripts" / "find-go.sh", folder=SOURCE_DIR).strip()
        folder = fresh("go")
        plugins = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
        (folder / "bin").mkdir()
        run("go", "build", "-o", "bin/", *plugins, folder=folder, path=path)
        module = "module=github.com/attend/attend"
        options = ("--go_out=.", f"--go_opt={module}", "--go-grpc_out=.", f"--go-grpc_opt={module}")
        run(PROTOC, f"-I{SOURCE_DIR}/proto", *options, *PROTOS, folder=folder, path=folder / "bin")
        run("go", "vet", ".", folder=folder, path=path)
        self.assertEqual(said(run("go", "run", ".", self.server.address, folder=folder, path=path)), EXPECTED)

    def test_java(self):
        folder = fresh("java")
        sources = folder / "src" / "dev" / "attend" / "example"
        sources.mkdir(parents=True)
        (folder / "Main.java").rename(sources / "Main.java")
        plugin = "--plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin"  # Debian's.
        run(PROTOC, f"-I{SOURCE_DIR}/proto", "--java_out=src", "--grpc-java_out=src", plugin, *PROTOS, folder=folder)
        maven = ("mvn", "-B", "-q")
        run(*maven, "compile", folder=folder)
        output = run(*maven, "exec:java", f"-Dexec.args={self.server.address}", folder=folder)
        self.assertEqual(said(output), EXPECTED)

    def test_python(self):
        folder, python = fresh("python"), OUT / "venv" / "bin" / "python"
        if not python.exists():
            run(sys.executable, "-m", "venv", OUT / "venv", folder=OUT)
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", "requirements.txt", folder=folder)
        options = (f"-I{SOURCE_DIR}/proto", "--python_out=.", "--grpc_python_out=.")
        run(python, "-m", "grpc_tools.protoc", *options, *PROTOS, folder=folder)
        self.assertEqual(said(run(python, "main.py", self.server.address, folder=folder)), EXPECTED)
        installed = run(python, "-c", "import google.rpc; print(google.rpc.__path__[0])", folder=folder).strip()
        for name in ("status.proto", "error_details.proto"):
            ours = SOURCE_DIR / "proto" / "google" / "rpc" / name
            self.assertEqual(ours.read_bytes(), (pathlib.Path(installed) / name).read_bytes(), f"{name} is that of googleapis")


if __name__ == "__main__":
    unittest.main()
