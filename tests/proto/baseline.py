#!/usr/bin/env python3
"""Is proto/baseline/attend.binpb what proto/ says today? A release needs that: the next one is compared with it.

Fails with the names of the files that differ; comments do not count. `make baseline` writes the file.
"""

import sys

from google.protobuf import descriptor_pb2

import proto_files

BASELINE = proto_files.SOURCE_DIR / "proto" / "baseline" / "attend.binpb"


def _without_comments(file):
    copy = descriptor_pb2.FileDescriptorProto.FromString(file.SerializeToString())
    copy.ClearField("source_code_info")
    copy.DiscardUnknownFields()  # What buf notes about the file.
    return copy


def differences():
    recorded = {file.name: _without_comments(file) for file in descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes()).file}
    today = {file.name: _without_comments(file) for file in proto_files.repository_protos()}
    gone = {name for name in set(recorded) - set(today) if name.startswith("attend/")}
    return sorted(gone | {name for name, file in today.items() if recorded.get(name) != file})


if __name__ == "__main__":
    found = differences()
    if found:
        print(f"error: {BASELINE.name} is not what proto/ says: {', '.join(found)}; run: make baseline", file=sys.stderr)
    sys.exit(1 if found else 0)
