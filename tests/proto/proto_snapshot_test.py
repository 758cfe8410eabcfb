"""Compares the API with its frozen snapshot: additions pass, what would break a client fails and says what it breaks."""

import pathlib
import unittest

import proto_files
import proto_snapshot

SNAPSHOT = pathlib.Path(__file__).with_name("attend_v1.snapshot.txt")

BEFORE = """syntax = "proto3";
package attend.v9;
service ScaleService { rpc Weigh(WeighRequest) returns (WeighResponse); }
message WeighRequest {
  string name = 1;
  repeated int64 shape = 2;
  optional float factor = 3;
  oneof unit { string gram = 4; string ounce = 5; }
  reserved 6;
  reserved "colour";
  message Part { bool heavy = 1; }
}
message WeighResponse { double weight = 1; Mode mode = 2; }
enum Mode { MODE_UNSPECIFIED = 0; MODE_NET = 1; reserved 2; }
"""

# What it is: (text in BEFORE, its replacement, the expected sentence).
BREAKING = {
    "field removed": ("string name = 1;", "", "field attend.v9.WeighRequest #1 (`name: string`) was removed"),
    "field renumbered": ("string name = 1;", "string name = 9;", "#1 (`name: string`) was renumbered to #9"),
    "field renamed": ("string name = 1;", "string title = 1;", "#1 was `name: string` and is now `title: string`"),
    "field retyped": ("string name = 1;", "bytes name = 1;", "#1 was `name: string` and is now `name: bytes`"),
    "field no longer repeated": ("repeated int64", "int64", "was `shape: repeated int64` and is now `shape: int64`"),
    "presence removed": ("optional float", "float", "was `factor: optional float` and is now `factor: float`"),
    "moved out of its oneof": (
        "string ounce = 5; }",
        "} string ounce = 5;",
        "was `ounce: string in oneof unit` and is now `ounce: string`",
    ),
    "reserved number given up": ("  reserved 6;\n", "", "field attend.v9.WeighRequest #6 (`reserved`) was removed"),
    "reserved name given up": ('  reserved "colour";\n', "", "WeighRequest colour (`reserved`) was removed"),
    "nested message changed": ("bool heavy", "int32 heavy", "field attend.v9.WeighRequest.Part #1 was `heavy: bool`"),
    "field of another message type": ("Mode mode", "WeighRequest mode", "and is now `mode: attend.v9.WeighRequest`"),
    "enum value renamed": ("MODE_NET", "MODE_PURE", "#1 was `MODE_NET` and is now `MODE_PURE`"),
    "enum value renumbered": ("MODE_NET = 1", "MODE_NET = 7", "Mode #1 (`MODE_NET`) was renumbered to #7"),
    "enum value removed": ("MODE_NET = 1;", "", "enum value attend.v9.Mode #1 (`MODE_NET`) was removed"),
    "method removed": ("rpc Weigh(WeighRequest) returns (WeighResponse);", "", "ScaleService.Weigh (`(attend"),
    "method renamed": ("rpc Weigh(", "rpc Measure(", "method attend.v9.ScaleService.Weigh (`(attend"),
    "method made a stream": ("returns (", "returns (stream ", "is now `(attend.v9.WeighRequest) returns (stream"),
    "package renamed": ("attend.v9", "attend.v8", "message attend.v9.WeighRequest (`in attend/v9/scale.proto`) was removed"),
}

ADDITIONS = {
    "field": ("string name = 1;", "string name = 1; string colour2 = 12;"),
    "message": ("message WeighResponse", "message More {}\nmessage WeighResponse"),
    "enum value": ("MODE_NET = 1;", "MODE_NET = 1; MODE_GROSS = 3;"),
    "method": ("rpc Weigh(", "rpc Again(WeighRequest) returns (WeighResponse); rpc Weigh("),
    "comment": ("message WeighResponse", "// Holds a weight.\nmessage WeighResponse"),
    "order": ("string name = 1;\n  repeated int64 shape = 2;", "repeated int64 shape = 2;\n  string name = 1;"),
}


def facts_of(text):
    return proto_snapshot.facts(proto_files.compile_text({"attend/v9/scale.proto": text}))


class SnapshotTest(unittest.TestCase):
    def test_the_api_keeps_every_promise_in_the_snapshot(self):
        frozen = proto_snapshot.from_text(SNAPSHOT.read_text())
        self.assertIn("service attend.v1.AttentionService", frozen)
        broken = list(proto_snapshot.breaking_changes(frozen, proto_snapshot.repository_facts()))
        self.assertFalse(broken, "breaks clients:\n" + "\n".join(broken))

    def test_every_addition_is_frozen_too(self):
        added = sorted(proto_snapshot.repository_facts().keys() - proto_snapshot.from_text(SNAPSHOT.read_text()).keys())
        self.assertFalse(added, "tests/proto/proto_snapshot.py says how to freeze:\n" + "\n".join(added))

    def test_the_snapshot_survives_being_written_and_read(self):
        facts = facts_of(BEFORE)
        self.assertEqual(proto_snapshot.from_text(proto_snapshot.to_text(facts)), facts)

    def test_breaking_changes_are_named(self):
        frozen = facts_of(BEFORE)
        for what, (text, replacement, expected) in BREAKING.items():
            with self.subTest(what):
                self.assertIn(text, BEFORE)
                current = facts_of(BEFORE.replace(text, replacement))
                broken = list(proto_snapshot.breaking_changes(frozen, current))
                self.assertTrue(any(expected in sentence for sentence in broken), f"expected {expected!r} in {broken}")

    def test_additions_pass(self):
        frozen = facts_of(BEFORE)
        for what, (text, replacement) in ADDITIONS.items():
            with self.subTest(what):
                self.assertIn(text, BEFORE)
                current = facts_of(BEFORE.replace(text, replacement))
                self.assertEqual(list(proto_snapshot.breaking_changes(frozen, current)), [])


if __name__ == "__main__":
    unittest.main()
