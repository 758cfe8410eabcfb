"""Compiles .proto files to descriptors with protoc, comments included."""

import os
import pathlib
import subprocess
import tempfile

from google.protobuf import descriptor_pb2

SOURCE_DIR = pathlib.Path(os.environ.get("ATTEND_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
PROTO_DIR = SOURCE_DIR / "proto"
PROTOC = os.environ.get("ATTEND_PROTOC", "protoc")


def compile_protos(root, names):
    """The FileDescriptorProtos of the files `names` (relative to `root`), without their imports."""
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory) / "set.pb"
        command = [PROTOC, f"-I{root}", f"-I{PROTO_DIR}", "--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run(command + sorted(names), check=True)
        return list(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file)


def compile_text(files):
    """The same for files given as {name: text}."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in files.items():
            path = pathlib.Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return compile_protos(directory, files)


def repository_protos():
    """Every file below proto/, found by looking, so that a new file cannot be forgotten."""
    return compile_protos(PROTO_DIR, [str(path.relative_to(PROTO_DIR)) for path in PROTO_DIR.rglob("*.proto")])
