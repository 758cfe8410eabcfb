"""Holds the google.rpc definitions that attend sends to the wire format of googleapis, which clients already have classes for.

The oracle is the published numbering (googleapis, google/rpc/status.proto and error_details.proto), written down here
once as numbers and once as bytes that any other implementation would send.
"""

import unittest

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

import proto_files

_Field = descriptor_pb2.FieldDescriptorProto

# (message, field): (number, type, repeated).
PUBLISHED = {
    ("google.rpc.Status", "code"): (1, _Field.TYPE_INT32, False),
    ("google.rpc.Status", "message"): (2, _Field.TYPE_STRING, False),
    ("google.rpc.Status", "details"): (3, ".google.protobuf.Any", True),
    ("google.rpc.ErrorInfo", "reason"): (1, _Field.TYPE_STRING, False),
    ("google.rpc.ErrorInfo", "domain"): (2, _Field.TYPE_STRING, False),
    ("google.rpc.ErrorInfo", "metadata"): (3, ".google.rpc.ErrorInfo.MetadataEntry", True),
    ("google.rpc.ErrorInfo.MetadataEntry", "key"): (1, _Field.TYPE_STRING, False),
    ("google.rpc.ErrorInfo.MetadataEntry", "value"): (2, _Field.TYPE_STRING, False),
    ("google.rpc.RetryInfo", "retry_delay"): (1, ".google.protobuf.Duration", False),
    ("google.rpc.BadRequest", "field_violations"): (1, ".google.rpc.BadRequest.FieldViolation", True),
    ("google.rpc.BadRequest.FieldViolation", "field"): (1, _Field.TYPE_STRING, False),
    ("google.rpc.BadRequest.FieldViolation", "description"): (2, _Field.TYPE_STRING, False),
}

# Message: (bytes as googleapis' classes write them, what they say).
BYTES = {
    "google.rpc.Status": (
        b"\x08\x03\x12\x03bad\x1a\x09\x0a\x03t/x\x12\x02\x0a\x00",
        {"code": 3, "message": "bad", "details": [any_pb2.Any(type_url="t/x", value=b"\x0a\x00")]},
    ),
    "google.rpc.ErrorInfo": (
        b"\x0a\x01R\x12\x09attend.v1\x1a\x06\x0a\x01k\x12\x01v",
        {"reason": "R", "domain": "attend.v1", "metadata": {"k": "v"}},
    ),
    "google.rpc.RetryInfo": (b"\x0a\x05\x08\x01\x10\x80\x01", {"retry_delay": duration_pb2.Duration(seconds=1, nanos=128)}),
    "google.rpc.BadRequest": (
        b"\x0a\x06\x0a\x01f\x12\x01d",
        {"field_violations": [{"field": "f", "description": "d"}]},
    ),
}


def all_fields(files):
    def walk(prefix, messages):
        for message in messages:
            for field in message.field:
                kind = field.type_name or field.type
                yield (f"{prefix}.{message.name}", field.name), (field.number, kind, field.label == _Field.LABEL_REPEATED)
            yield from walk(f"{prefix}.{message.name}", message.nested_type)

    for file in files:
        yield from walk(file.package, file.message_type)


class GoogleRpcTest(unittest.TestCase):
    def setUp(self):
        self.files = [file for file in proto_files.repository_protos() if file.package == "google.rpc"]

    def test_every_field_that_is_sent_has_its_published_number_and_type(self):
        ours = dict(all_fields(self.files))
        for key, value in PUBLISHED.items():
            with self.subTest(key):
                self.assertEqual(ours.get(key), value)

    def test_every_language_finds_the_names_of_its_own_library(self):
        """Without these options, generated code defines google.rpc a second time, under other names."""
        for file in self.files:
            with self.subTest(file.name):
                self.assertTrue(file.options.go_package.startswith("google.golang.org/genproto/googleapis/rpc/"))
                self.assertEqual(file.options.java_package, "com.google.rpc")
                self.assertTrue(file.options.java_multiple_files)

    def test_bytes_of_other_implementations_are_read_and_written(self):
        pool = descriptor_pool.DescriptorPool()
        for module in (any_pb2, duration_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        for file in self.files:
            pool.Add(file)
        factory = message_factory.MessageFactory(pool)
        for name, (data, said) in BYTES.items():
            with self.subTest(name):
                message = factory.GetPrototype(pool.FindMessageTypeByName(name)).FromString(data)
                self.assertEqual(message.SerializeToString(deterministic=True), data)
                for field, value in said.items():
                    self.assert_says(getattr(message, field), value)

    def assert_says(self, actual, expected):
        if isinstance(expected, list):
            self.assertEqual(len(actual), len(expected))
            for one, other in zip(actual, expected, strict=True):
                self.assert_says(one, other)
        elif isinstance(expected, dict) and not hasattr(actual, "items"):
            for field, value in expected.items():
                self.assert_says(getattr(actual, field), value)
        elif hasattr(expected, "SerializeToString"):  # The pool has its own classes of Any and Duration.
            self.assertEqual(actual.SerializeToString(), expected.SerializeToString())
        else:
            self.assertEqual(dict(actual) if hasattr(actual, "items") else actual, expected)


if __name__ == "__main__":
    unittest.main()
