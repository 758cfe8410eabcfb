"""What is wrong with a request is said with a code, the field's path, a sentence and a reason; and harms nobody."""

import re
import unittest

import grpc
import numpy as np

from attend_testing.element_types import BOOL
from attend_testing.errors import call_failure
from attend_testing.refusals import RefusalTestCase, attend, boolean, ones, raw, sdpa
from attend_testing.requests import sdpa_request
from attend_testing.server import Server, ServerTestCase, resident_growth
from attend_testing.stubs import pb, tensor_pb2
from attend_testing.tensors import OUTPUT, QUERY, WEIGHTS, from_tensor, to_linear, to_tensor

NAN, INFINITY = float("nan"), float("inf")
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


# What it is: (request, the path of the offending field).
TENSORS = {
    "rank 0": (sdpa(query=raw([], b"\0" * 4)), "query.shape"),
    "rank 1": (sdpa(query=raw([8], b"\0" * 32)), "query.shape"),
    "rank 5": (sdpa(query=raw([1] * 5, b"\0" * 4)), "query.shape"),
    "rank 9": (sdpa(query=raw([1] * 9, b"\0" * 4)), "query.shape"),
    "rank 100": (sdpa(query=raw([1] * 100, b"\0" * 4)), "query.shape"),
    "fewer axes than the query": (sdpa(key=raw([2, 4, 8], b"\0" * 256)), "key.shape"),
    "negative axis": (sdpa(query=raw([2, 2, -3, 8], b"\0" * 384)), "query.shape[2]"),
    "least axis": (sdpa(query=raw([2, 2, 3, INT64_MIN], b"")), "query.shape[3]"),
    "zero axis": (sdpa(query=raw([2, 0, 3, 8], b"")), "query.shape[1]"),
    "two negative axes whose product is right": (sdpa(query=raw([2, 2, -3, -8], b"\0" * 384)), "query.shape[2]"),
    "axis of 2^62": (sdpa(query=raw([2**62, 1, 1, 1], b"\0" * 4)), "query.shape"),
    "greatest axis": (sdpa(query=raw([INT64_MAX, 1, 1, 1], b"\0" * 4)), "query.shape"),
    "product of 2^64, which wraps to 0": (sdpa(query=raw([2**32, 2**32, 1, 1], b"")), "query.shape"),
    "product of 2^64 + what is there": (sdpa(query=raw([2**61 + 3, 8, 1, 1], b"\0" * 96)), "query.shape"),
    "bytes of 2^64 + what is there": (sdpa(query=raw([2**59 + 3, 8, 1, 1], b"\0" * 96)), "query.shape"),
    "bytes that wrap beyond 2^63": (sdpa(query=raw([2**61, 1, 1, 1], b"")), "query.shape"),
    "2^40 elements and no bytes": (sdpa(query=raw([2**20, 2**20, 1, 1], b"")), "query"),
    "2^40 elements and one value": (sdpa(query=raw([2**20, 2**20, 1, 1], values=[1])), "query.values"),
    "one byte too few": (sdpa(query=raw([2, 2, 3, 8], b"\0" * 383)), "query.data"),
    "one byte too many": (sdpa(query=raw([2, 2, 3, 8], b"\0" * 385)), "query.data"),
    "one element too few": (sdpa(value=raw([2, 2, 4, 8], b"\0" * 508)), "value.data"),
    "one value too few": (sdpa(key=raw([2, 2, 4, 8], values=[0] * 127)), "key.values"),
    "one value too many": (sdpa(key=raw([2, 2, 4, 8], values=[0] * 129)), "key.values"),
    "data and values": (sdpa(key=raw([2, 2, 4, 8], b"\0" * 512, [0] * 128)), "key"),
    "neither data nor values": (sdpa(key=raw([2, 2, 4, 8])), "key"),
    "a type of another width": (sdpa(query=raw([2, 2, 3, 8], b"\0" * 384, data_type=2)), "query.data"),
    "bool": (sdpa(key=raw([2, 2, 4, 8], b"\0" * 128, data_type=5)), "key.data_type"),
    "an unknown type": (sdpa(query=raw([2, 2, 3, 8], b"\0" * 384, data_type=99)), "query.data_type"),
    "a negative type": (sdpa(query=raw([2, 2, 3, 8], b"\0" * 384, data_type=-1)), "query.data_type"),
}

SDPA = {
    "an empty message": (pb.ScaledDotProductAttentionRequest(), "query"),
    "no query": (sdpa(query=None), "query"),
    "no key": (sdpa(key=None), "key"),
    "no value": (sdpa(value=None), "value"),
    "an empty tensor": (sdpa(value=tensor_pb2.Tensor()), "value.shape"),
    "key heads that do not divide": (sdpa(key=to_tensor(ones(2, 3, 4, 8))), "key.shape"),
    "more key heads than query heads": (sdpa(key=to_tensor(ones(2, 4, 4, 8))), "key.shape"),
    "another batch size": (sdpa(key=to_tensor(ones(3, 2, 4, 8))), "key.shape"),
    "another head size": (sdpa(key=to_tensor(ones(2, 2, 4, 9))), "key.shape"),
    "values of another length": (sdpa(value=to_tensor(ones(2, 2, 5, 8))), "value.shape"),
    "values of other heads": (sdpa(value=to_tensor(ones(2, 1, 4, 8))), "value.shape"),
    "output unspecified": (sdpa(outputs=[OUTPUT, 0]), "outputs[1]"),
    "output unknown": (sdpa(outputs=[OUTPUT, OUTPUT, 99]), "outputs[2]"),
    "output negative": (sdpa(outputs=[-1]), "outputs[0]"),
    "query asked back": (sdpa(outputs=[QUERY]), "outputs[0]"),
    "causal mode unknown": (sdpa(options__causal=99), "options.causal"),
    "weights form unknown": (sdpa(options__attention_weights_form=99), "options.attention_weights_form"),
    "scale not a number": (sdpa(options__scale=NAN), "options.scale"),
    "scale infinite": (sdpa(options__scale=-INFINITY), "options.scale"),
    "softcap zero": (sdpa(options__softcap=0.0), "options.softcap"),
    "softcap negative": (sdpa(options__softcap=-1.0), "options.softcap"),
    "softcap infinite": (sdpa(options__softcap=INFINITY), "options.softcap"),
    "softcap not a number": (sdpa(options__softcap=NAN), "options.softcap"),
    "left window negative": (sdpa(options__sliding_window_left=-1), "options.sliding_window_left"),
    "right window least": (sdpa(options__sliding_window_right=INT64_MIN), "options.sliding_window_right"),
    "a length too few": (sdpa(options__valid_lengths=[4]), "options.valid_lengths"),
    "a length too many": (sdpa(options__valid_lengths=[4, 4, 4]), "options.valid_lengths"),
    "a length negative": (sdpa(options__valid_lengths=[4, -1]), "options.valid_lengths[1]"),
    "a length beyond the keys": (sdpa(options__valid_lengths=[5, 4]), "options.valid_lengths[0]"),
    "a length of 2^63 - 1": (sdpa(options__valid_lengths=[4, INT64_MAX]), "options.valid_lengths[1]"),
    "mask with other queries": (sdpa(options__mask=boolean(4, 4)), "options.mask.shape"),
    "mask with other keys": (sdpa(options__mask=boolean(1, 1, 3, 3)), "options.mask.shape"),
    "mask with other heads": (sdpa(options__mask=boolean(1, 4, 3, 4)), "options.mask.shape"),
    "mask with other batch": (sdpa(options__mask=boolean(3, 1, 1, 1)), "options.mask.shape"),
    "mask of three axes": (sdpa(options__mask=boolean(2, 3, 4)), "options.mask.shape"),
    "mask of numbers": (sdpa(options__mask=to_tensor(ones(3, 4))), "options.mask.data_type"),
    "mask of too few bytes": (sdpa(options__mask=raw([3, 4], b"\1" * 11, data_type=BOOL)), "options.mask.data"),
    "bias with other keys": (sdpa(options__bias=to_tensor(ones(3, 5))), "options.bias.shape"),
    "bias of truths": (sdpa(options__bias=boolean(3, 4)), "options.bias.data_type"),
    "bias without numbers": (sdpa(options__bias=raw([3, 4])), "options.bias"),
    "a slope too many": (sdpa(options__alibi_slopes=to_tensor(ones(3))), "options.alibi_slopes.shape"),
    "slopes of two axes": (sdpa(options__alibi_slopes=to_tensor(ones(1, 2))), "options.alibi_slopes.shape"),
    "a sink too few": (sdpa(options__sinks=to_tensor(ones(1))), "options.sinks.shape"),
    "a zero axis of sinks": (sdpa(options__sinks=raw([0])), "options.sinks.shape[0]"),
}

ATTEND = {
    "an empty message": (pb.AttendRequest(), "embeddings"),
    "no embeddings": (attend(embeddings=None), "embeddings"),
    "embeddings of one axis": (attend(embeddings=to_tensor(ones(12))), "embeddings.shape"),
    "embeddings of four axes": (attend(embeddings=to_tensor(ones(1, 2, 4, 12))), "embeddings.shape"),
    "context without batch": (attend(context=to_tensor(ones(4, 12))), "context.shape"),
    "context of another batch": (attend(context=to_tensor(ones(3, 4, 12))), "context.shape"),
    "context of another size": (attend(context=to_tensor(ones(2, 4, 13))), "layer.key_projection.weight.shape"),
    "context of another size without layer": (attend(layer=None, context=to_tensor(ones(2, 4, 13))), "context.shape"),
    "heads negative": (attend(layer__num_heads=-1), "layer.num_heads"),
    "heads above the most": (attend(layer__num_heads=1025), "layer.num_heads"),
    "heads that do not divide": (attend(layer__num_heads=5), "layer.query_projection.weight.shape"),
    "key heads negative": (attend(layer__num_kv_heads=-1), "layer.num_kv_heads"),
    "key heads that do not divide": (attend(layer__num_kv_heads=2), "layer.num_kv_heads"),
    "more key heads than heads": (attend(layer__num_kv_heads=6), "layer.num_kv_heads"),
    "a layer of nothing": (attend(layer=pb.AttentionLayer()), "layer.query_projection.weight"),
    "no value projection": (attend(layer__value_projection=None), "layer.value_projection.weight"),
    "a projection of nothing": (attend(layer__key_projection=pb.Linear()), "layer.key_projection.weight"),
    "a weight of one axis": (
        attend(layer__query_projection=to_linear(ones(144))),
        "layer.query_projection.weight.shape",
    ),
    "a weight of the wrong inner size": (
        attend(layer__query_projection=to_linear(ones(12, 13))),
        "layer.query_projection.weight.shape",
    ),
    "key heads of another size": (
        attend(layer__key_projection=to_linear(ones(15, 12))),
        "layer.key_projection.weight.shape",
    ),
    "an output weight of the wrong inner size": (
        attend(layer__output_projection=to_linear(ones(12, 11))),
        "layer.output_projection.weight.shape",
    ),
    "an output bias alone": (
        attend(layer__output_projection=pb.Linear(bias=to_tensor(ones(12)))),
        "layer.output_projection.weight",
    ),
    "a bias of the wrong size": (
        attend(layer__value_projection=to_linear(ones(12, 12), ones(13))),
        "layer.value_projection.bias.shape",
    ),
    "a bias of two axes": (
        attend(layer__value_projection=to_linear(ones(12, 12), ones(1, 12))),
        "layer.value_projection.bias.shape",
    ),
    "a weight of too few bytes": (
        attend(layer__key_projection=pb.Linear(weight=raw([12, 12], b"\0" * 575))),
        "layer.key_projection.weight.data",
    ),
    "a length beyond the tokens": (attend(options__valid_lengths=[4, 5]), "options.valid_lengths[1]"),
    "mask of other heads": (attend(options__mask=boolean(1, 2, 4, 4)), "options.mask.shape"),
    "a slope too few": (attend(options__alibi_slopes=to_tensor(ones(2))), "options.alibi_slopes.shape"),
    "output unspecified": (attend(outputs=[0]), "outputs[0]"),
}

# What it is: bytes that are no protobuf message.
MALFORMED = {
    "a varint without end": b"\x08" + b"\xff" * 11,
    "a length beyond the message": b"\x0a\x7f\x00",
    "a tag cut short": b"\x80",
    "field number zero": b"\x02\x00",
    "an end of a group that never began": b"\x0c",
    "packed floats of 3 bytes": b"\x0a\x05\x22\x03abc",
    "text": b"GET / HTTP/1.1\r\n\r\n",
}


class WrongInputTest(RefusalTestCase):
    def test_the_good_requests_are_good(self):
        self.stub.ScaledDotProductAttention(sdpa(), timeout=60)
        self.stub.Attend(attend(), timeout=60)

    def test_wrong_tensors(self):
        for what, (request, field) in TENSORS.items():
            with self.subTest(what):
                self.check_refused(self.stub.ScaledDotProductAttention, request, field)

    def test_wrong_tensors_of_a_layer_have_the_whole_path(self):
        wrong = {
            ".shape[1]": raw([12, -12], b"\0" * 576),
            ".shape": raw([2**61 + 12, 8], b"\0" * 576),
            ".data_type": raw([12, 12], b"\0" * 576, data_type=99),
            ".values": raw([12, 12], values=[0] * 143),
            "": raw([12, 12], b"\0" * 576, [0] * 144),
        }
        for tail, tensor in wrong.items():
            for path in ("layer.output_projection.weight", "layer.key_projection.weight"):
                with self.subTest(path + tail):
                    request = attend(**{path.replace(".", "__"): tensor})
                    self.check_refused(self.stub.Attend, request, path + tail)

    def test_wrong_scaled_dot_product_requests(self):
        for what, (request, field) in SDPA.items():
            with self.subTest(what):
                self.check_refused(self.stub.ScaledDotProductAttention, request, field)

    def test_wrong_attend_requests(self):
        for what, (request, field) in ATTEND.items():
            with self.subTest(what):
                self.check_refused(self.stub.Attend, request, field)

    def test_malformed_messages(self):
        for name in ("Attend", "ScaledDotProductAttention"):
            method = self.server.channel.unary_unary(f"/attend.v1.AttentionService/{name}")
            for what, data in MALFORMED.items():
                with self.subTest(what, method=name):
                    failure = call_failure(method, data)
                    self.assertEqual(failure.code, grpc.StatusCode.INVALID_ARGUMENT, failure)
                    self.assertEqual((failure.reason, failure.domain), ("MALFORMED_REQUEST", "attend.v1"), failure)
                    self.assertEqual(failure.fields, [""], "the message as a whole")
                    position = failure.metadata["byte_position"]
                    self.assertIn(f"at byte {position}:", failure.violations[0][1], failure)
                    self.check_still_serving()

    def test_unknown_methods(self):
        for path in ("/attend.v1.AttentionService/Nothing", "/attend.v1.Nothing/Attend", "/x"):
            with self.subTest(path):
                failure = call_failure(self.server.channel.unary_unary(path), b"")
                self.assertEqual(failure.code, grpc.StatusCode.UNIMPLEMENTED, failure)
                self.assertEqual(failure.domain, "attend.v1", failure)
                self.check_still_serving()

    def test_nan_and_infinity_are_no_errors_and_propagate(self):
        """A score of NaN or +Infinity makes its row NaN; one of -Infinity counts as excluded, so all of them give 0."""
        for number, expected in ((NAN, NAN), (INFINITY, NAN), (-INFINITY, 0)):
            for form in ("data", "values"):
                with self.subTest(number, form=form):
                    query = ones(3, 8)
                    query[1] = number  # The other rows stay what they are.
                    outputs = [OUTPUT, WEIGHTS]
                    request = sdpa_request(query, ones(4, 8), ones(4, 8), form=form, outputs=outputs)
                    answer = self.stub.ScaledDotProductAttention(request, timeout=60)
                    output, weights = from_tensor(answer.output), from_tensor(answer.attention_weights)
                    np.testing.assert_array_equal(output[1], np.full(8, expected))
                    np.testing.assert_array_equal(weights[1], np.full(4, expected))
                    np.testing.assert_array_equal(output[::2], ones(2, 8))
                    self.check_still_serving()

    def test_nan_and_infinity_of_values_propagate(self):
        for number in (NAN, INFINITY, -INFINITY):
            with self.subTest(number):
                value = ones(4, 8)
                value[2, 5] = number
                answer = self.stub.ScaledDotProductAttention(sdpa_request(ones(3, 8), ones(4, 8), value), timeout=60)
                expected = ones(3, 8)
                expected[:, 5] = number
                np.testing.assert_array_equal(from_tensor(answer.output), expected)


def padded(message, size):
    """The bytes of `message`, made `size` long by an unknown field."""
    data = message.SerializeToString()
    for payload in range(size - len(data), -1, -1):
        varint, rest = b"", payload
        while rest > 0x7F:
            varint, rest = varint + bytes([rest & 0x7F | 0x80]), rest >> 7
        padding = b"\xfa\x3e" + varint + bytes([rest]) + b"\0" * payload
        if len(data + padding) == size:
            return data + padding
    raise AssertionError(f"{len(data)} bytes cannot be padded to {size}")


class LimitTest(unittest.TestCase):
    """Each limit to the last unit: what just fits is served, one more is refused by name."""

    def check_refused(self, method, request, flag):
        failure = call_failure(method, request)
        self.assertEqual(failure.code, grpc.StatusCode.RESOURCE_EXHAUSTED, failure)
        self.assertEqual((failure.reason, failure.domain), ("LIMIT_EXCEEDED", "attend.v1"), failure)
        self.assertEqual(failure.metadata.get("flag"), flag, failure)
        self.assertIn(flag, failure.message)
        self.assertIsNone(failure.retry_seconds, "trying again does not help")
        self.assertNotIn("grpc-retry-pushback-ms", failure.trailers)
        self.assertEqual(failure.violations, [])
        return failure

    def test_request_bytes(self):
        limit = 70000  # More than one HTTP/2 frame.
        with Server("--max-request-bytes", str(limit)) as server:
            self.assertEqual(server.stub.GetServerInfo(pb.GetServerInfoRequest()).limits.max_request_bytes, limit)
            call = server.channel.unary_unary("/attend.v1.AttentionService/ScaledDotProductAttention")
            call(padded(sdpa(), limit), timeout=60)
            self.check_refused(call, padded(sdpa(), limit + 1), "--max-request-bytes")
            self.check_refused(call, padded(sdpa(), 40 * limit), "--max-request-bytes")
            call(padded(sdpa(), limit), timeout=60)

    def check_boundary(self, flag, method, request, too_small, needed=None):
        """Learns from the refusal what the request needs, unless told, and holds the server to it."""
        with Server(flag, str(too_small)) as server:
            failure = self.check_refused(getattr(server.stub, method), request, flag)
            server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
        needed = needed or max(int(number) for number in re.findall(r"(?<!\S)\d+(?!\S)", failure.message))
        with Server(flag, str(needed)) as server:
            getattr(server.stub, method)(request, timeout=60)
        with Server(flag, str(needed - 1)) as server:
            self.check_refused(getattr(server.stub, method), request, flag)
        return needed

    def test_response_bytes(self):
        for method, request in (("ScaledDotProductAttention", sdpa(outputs=[WEIGHTS, OUTPUT])), ("Attend", attend())):
            with self.subTest(method):
                needed = self.check_boundary("--max-response-bytes", method, request, 16)
                with Server() as server:
                    size = getattr(server.stub, method)(request, timeout=60).ByteSize()
                self.assertLessEqual(size, needed, "the limit bounds the message that is sent")
                self.assertLess(needed - size, 256, "and is close")

    def test_request_flops(self):
        attention = 2 * (8 + 8) * (2 * 2 * 3 * 4)  # 2 (E + V) for each of B H T S pairs.
        self.check_boundary("--max-request-flops", "ScaledDotProductAttention", sdpa(), 10, attention)
        projections = 4 * 2 * (2 * 4) * 12 * 12
        attention = 2 * (4 + 4) * (2 * 3 * 4 * 4)
        self.check_boundary("--max-request-flops", "Attend", attend(), 10, projections + attention)

    def test_request_memory(self):
        for method, request in (("ScaledDotProductAttention", sdpa()), ("Attend", attend())):
            with self.subTest(method):
                needed = self.check_boundary("--max-request-memory-bytes", method, request, 64)
                tensors = request.ByteSize()
                self.assertGreater(needed, tensors / 2, "inputs are counted")

    def test_memory_in_flight(self):
        """One request larger than what all may take together is too large; that others are in the way is another error."""
        for method, request in (("ScaledDotProductAttention", sdpa()), ("Attend", attend())):
            with self.subTest(method):
                self.check_boundary("--max-memory-in-flight-bytes", method, request, request.ByteSize())
                with Server("--max-memory-in-flight-bytes", str(request.ByteSize() - 1)) as server:
                    self.check_refused(getattr(server.stub, method), request, "--max-memory-in-flight-bytes")

    def test_control_messages(self):
        with Server() as server:
            call = server.channel.unary_unary("/attend.v1.AttentionService/GetServerInfo")
            call(padded(pb.GetServerInfoRequest(), 1 << 16), timeout=60)
            failure = call_failure(call, padded(pb.GetServerInfoRequest(), (1 << 16) + 1))
        self.assertEqual(failure.code, grpc.StatusCode.RESOURCE_EXHAUSTED, failure)
        self.assertEqual((failure.reason, failure.metadata), ("LIMIT_EXCEEDED", {"limit_bytes": "65536"}), failure)

    def test_values_form_counts_as_many_bytes(self):
        request = sdpa_request(ones(3, 8), ones(4, 8), ones(4, 8), form="values")
        self.check_boundary("--max-request-memory-bytes", "ScaledDotProductAttention", request, 64)
        self.check_boundary("--max-response-bytes", "ScaledDotProductAttention", request, 16)


class MemoryTest(ServerTestCase):
    """A small request must not make the server take much memory, whatever it claims."""

    ALLOWED = resident_growth(16 << 20)

    def growth(self, calls):
        self.stub.ScaledDotProductAttention(sdpa(), timeout=60)
        self.server.reset_peak_rss()
        before = self.server.rss_bytes()
        calls()
        return self.server.peak_rss_bytes() - before

    def test_claims_are_checked_before_memory_is_taken(self):
        claims = {
            "elements that are not there": sdpa(query=raw([1, 1, 2**20, 2**20])),
            "elements in values": sdpa(query=raw([1, 1, 2**20, 2**20], values=[1])),
            "elements of a mask": sdpa(options__mask=raw([2, 2, 2**19, 2**19], data_type=BOOL)),
            "a batch": sdpa(query=raw([2**40, 1, 1, 1], b"\0" * 4)),
        }
        for what, request in claims.items():
            with self.subTest(what):
                self.assertLess(request.ByteSize(), 2000)
                grown = self.growth(
                    lambda r=request: [call_failure(self.stub.ScaledDotProductAttention, r) for _ in range(50)]
                )
                self.assertLess(grown, self.ALLOWED)

    def test_answers_beyond_the_limit_are_refused_before_they_are_computed(self):
        """256 KiB of query and key whose attention weights would take 4 GiB."""
        request = sdpa_request(ones(2**15, 1), ones(2**15, 1), ones(2**15, 1), outputs=[WEIGHTS])
        failures = []
        grown = self.growth(
            lambda: failures.extend(call_failure(self.stub.ScaledDotProductAttention, request) for _ in range(5))
        )
        for failure in failures:
            self.assertEqual(failure.code, grpc.StatusCode.RESOURCE_EXHAUSTED, failure)
        self.assertLess(grown, self.ALLOWED)

    def test_positive_control(self):
        """The measurement sees 32 MiB that are really taken, but for what the kernel has not added up yet."""
        request = sdpa_request(ones(4096, 1), ones(2048, 1), ones(2048, 1), outputs=[WEIGHTS])
        grown = self.growth(lambda: self.stub.ScaledDotProductAttention(request, timeout=60))
        self.assertGreater(grown, 24 << 20)


if __name__ == "__main__":
    unittest.main()
