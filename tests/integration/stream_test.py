"""StreamAttend through grpcio: the bits of unary calls, order, failures, flow control, cancellation, drain."""

import itertools
import queue
import threading
import unittest

import grpc
import numpy as np

from attend_testing.admin import Scrape
from attend_testing.errors import call_failure, failure_of
from attend_testing.load import seconds_until_idle, wait_until, wait_until_computing
from attend_testing.server import TIMING, Server, ServerTestCase, is_sanitized
from attend_testing.stubs import pb, status_pb2
from attend_testing.tensors import OUTPUT, WEIGHTS, from_tensor, to_tensor

# Processor time that stopping a computation may take: one tile on each thread and the noise of measuring.
STOPPING_SECONDS = 5.0 if is_sanitized() else 1.0


def attend_request(tokens, **fields):
    return pb.AttendRequest(embeddings=to_tensor(tokens), **fields)


def random_request(rng, max_length=200):
    tokens = rng.standard_normal((rng.integers(1, max_length), rng.integers(1, 65)), dtype=np.float32)
    outputs = (OUTPUT, WEIGHTS) if rng.integers(4) == 0 else (OUTPUT,)
    return attend_request(tokens, outputs=outputs)


def endless_request():
    """More than 10^13 operations: minutes of every core."""
    return attend_request(np.zeros((1 << 20, 1), np.float32))


class Stream:
    """A stream that the test feeds message by message."""

    def __init__(self, stub, timeout=None):
        self._requests = queue.Queue()
        self.call = stub.StreamAttend(iter(self._requests.get, None), timeout=timeout)

    def send(self, request_id, attend=None, **fields):
        self._requests.put(pb.StreamAttendRequest(id=request_id, attend=attend, **fields))

    def close(self):
        self._requests.put(None)

    def receive(self):
        return next(self.call)

    def end(self):
        """The Failure that ends the stream, after all answers; None when it ends well."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError as error:
            return failure_of(error)
        return None


class StreamTest(ServerTestCase):
    def test_many_in_flight_are_each_bit_equal_to_their_unary_call(self):
        rng = np.random.default_rng(0)
        requests = [random_request(rng) for _ in range(60 if is_sanitized() else 300)]
        expected = [self.stub.Attend(request, timeout=60).SerializeToString() for request in requests]
        messages = (pb.StreamAttendRequest(id=i, attend=request) for i, request in enumerate(requests))
        answered = set()
        call = self.stub.StreamAttend(messages, timeout=120)
        for answer in call:
            self.assertFalse(answer.HasField("status"), answer.status)
            self.assertEqual(answer.attend.SerializeToString(), expected[answer.id], f"request {answer.id}")
            self.assertRegex(answer.server_timing, TIMING)
            answered.add(answer.id)
        self.assertEqual(answered, set(range(len(requests))))
        self.assertEqual(call.code(), grpc.StatusCode.OK)
        self.assertRegex(dict(call.trailing_metadata())["server-timing"], TIMING)

    def test_answers_are_the_bytes_protobuf_would_write(self):
        raw = self.server.channel.stream_stream("/attend.v1.AttentionService/StreamAttend")
        rng = np.random.default_rng(1)
        requests = [pb.StreamAttendRequest(id=i * i, attend=random_request(rng)) for i in range(20)]
        requests.append(pb.StreamAttendRequest(id=7))
        for answer in raw((request.SerializeToString() for request in requests), timeout=60):
            self.assertEqual(pb.StreamAttendResponse.FromString(answer).SerializeToString(), answer)

    def test_one_bad_among_good_has_the_details_of_a_unary_call(self):
        good = attend_request(np.ones((3, 2), np.float32))
        bad = pb.AttendRequest(embeddings=good.embeddings)
        bad.embeddings.shape[0] = 4
        unary = call_failure(self.stub.Attend, bad)
        stream = Stream(self.stub)
        for i, request in enumerate([good, bad, good, bad, good]):
            stream.send(i, request)
        stream.close()
        answers = {answer.id: answer for answer in stream.call}
        self.assertEqual(sorted(answers), [0, 1, 2, 3, 4])
        for i in (0, 2, 4):
            self.assertEqual(from_tensor(answers[i].attend.output).shape, (3, 2))
        details = status_pb2.Status.FromString(unary.trailers["grpc-status-details-bin"])
        for i in (1, 3):
            self.assertFalse(answers[i].HasField("attend"))
            self.assertEqual(answers[i].status, details)

    def test_scaled_dot_product_attention_among_others_has_the_bits_of_unary_calls(self):
        rng = np.random.default_rng(2)
        requests = []
        for i in range(60):
            queries, keys, size = rng.integers(1, 200), rng.integers(1, 200), rng.integers(1, 65)
            shapes = (queries, size), (keys, size), (keys, 3)
            query, key, value = (to_tensor(rng.standard_normal(shape, dtype=np.float32)) for shape in shapes)
            sdpa = pb.ScaledDotProductAttentionRequest(query=query, key=key, value=value, outputs=(OUTPUT, WEIGHTS))
            requests.append(random_request(rng) if i % 3 == 0 else sdpa)
        is_attend = [isinstance(request, pb.AttendRequest) for request in requests]
        methods = [self.stub.Attend if attend else self.stub.ScaledDotProductAttention for attend in is_attend]
        expected = [method(request, timeout=60) for method, request in zip(methods, requests, strict=True)]
        names = ["attend" if attend else "scaled_dot_product_attention" for attend in is_attend]
        messages = (pb.StreamAttendRequest(id=i, **{names[i]: request}) for i, request in enumerate(requests))
        answered = set()
        for answer in self.stub.StreamAttend(messages, timeout=120):
            self.assertEqual(answer.WhichOneof("response"), names[answer.id])
            self.assertEqual(getattr(answer, names[answer.id]), expected[answer.id])
            self.assertRegex(answer.server_timing, TIMING)
            answered.add(answer.id)
        self.assertEqual(answered, set(range(len(requests))))

    def test_a_bad_one_has_the_details_of_a_unary_call_and_none_names_the_field(self):
        bad = pb.ScaledDotProductAttentionRequest(query=to_tensor(np.ones((3, 2), np.float32)))
        unary = call_failure(self.stub.ScaledDotProductAttention, bad)
        stream = Stream(self.stub)
        stream.send(1, scaled_dot_product_attention=bad)
        stream.send(2)
        stream.close()
        answers = {answer.id: answer for answer in stream.call}
        self.assertEqual(
            answers[1].status, status_pb2.Status.FromString(unary.trailers["grpc-status-details-bin"])
        )
        self.assertEqual(answers[2].status.code, grpc.StatusCode.INVALID_ARGUMENT.value[0])
        self.assertIn(b"request", answers[2].status.details[1].value)

    def test_a_message_that_is_none_ends_the_stream_and_tells_where(self):
        raw = self.server.channel.stream_stream("/attend.v1.AttentionService/StreamAttend")
        good = pb.StreamAttendRequest(id=1, attend=attend_request(np.ones((1, 1), np.float32))).SerializeToString()
        call = raw(iter([good, b"\x08\x01\x1a\x20", good]), timeout=60)
        self.assertEqual(pb.StreamAttendResponse.FromString(next(call)).id, 1)
        with self.assertRaises(grpc.RpcError) as caught:
            next(call)
        failure = failure_of(caught.exception)
        self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"))
        self.assertEqual(failure.metadata["byte_position"], "2")

    def test_ids_are_the_callers_affair(self):
        stream = Stream(self.stub)
        for request_id in (5, 5, 0, -1):
            stream.send(request_id, attend_request(np.ones((1, 1), np.float32)))
        stream.close()
        self.assertEqual(sorted(answer.id for answer in stream.call), [-1, 0, 5, 5])

    def test_the_limit_is_reported(self):
        self.assertEqual(
            self.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60).limits.max_stream_requests_in_flight, 64
        )


class BusyTest(ServerTestCase):
    FLAGS = ("--threads", "1", "--max-stream-requests-in-flight", "8", "--max-memory-in-flight-bytes", "64MiB")

    def small(self):
        return attend_request(np.ones((2, 2), np.float32))

    def full_size(self):
        """A request of which two fit into the memory at a time."""
        return attend_request(np.zeros((1 << 20, 4), np.float32), options=pb.AttentionOptions(
            sliding_window_left=1, causal=pb.CAUSAL_MODE_BOTTOM_RIGHT))

    def assert_all_is_released(self):
        self.assertLess(seconds_until_idle(self.server), STOPPING_SECONDS)
        answer = self.stub.Attend(self.full_size(), timeout=120)
        self.assertEqual(list(answer.output.shape), [1 << 20, 4])

    def test_a_slow_request_does_not_block_fast_ones(self):
        stream = Stream(self.stub)
        self.addCleanup(stream.call.cancel)
        stream.send(1, endless_request())
        wait_until_computing(self.server)
        for i in range(2, 50):
            stream.send(i, self.small())
        self.assertEqual([stream.receive().id for _ in range(2, 50)], list(range(2, 50)))

    def test_cancelling_stops_and_releases_everything(self):
        stream = Stream(self.stub)
        for i in range(6):
            stream.send(i, endless_request())
        wait_until_computing(self.server)
        stream.call.cancel()
        self.assert_all_is_released()

    def test_a_client_that_is_killed_releases_everything(self):
        channel = self.server.new_channel()
        stream = Stream(type(self.stub)(channel))
        for i in range(6):
            stream.send(i, endless_request())
        wait_until_computing(self.server)
        channel.close()
        self.assert_all_is_released()

    def test_the_deadline_bounds_everything(self):
        stream = Stream(self.stub, timeout=1)
        for i in range(3):
            stream.send(i, endless_request())
        self.assertEqual(stream.end().code, grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assert_all_is_released()

    def test_who_never_reads_is_not_read_and_fills_no_memory(self):
        """1000 requests of 1 MiB: the sender is stopped once the windows and socket buffers of both directions are full."""
        message = pb.StreamAttendRequest(attend=attend_request(
            np.zeros((1 << 16, 4), np.float32),
            options=pb.AttentionOptions(sliding_window_left=1, causal=pb.CAUSAL_MODE_BOTTOM_RIGHT)))
        taken, stop = itertools.count(), threading.Event()
        number = [0]

        def messages():
            while not stop.is_set() and number[0] < 1000:
                number[0] = next(taken)
                yield message

        before = self.server.rss_bytes()
        call = self.stub.StreamAttend(messages(), timeout=120)
        self.addCleanup(call.cancel)
        self.addCleanup(stop.set)
        seen = -1
        for _ in range(100):
            if seen == number[0] > 8:
                break
            seen = number[0]
            threading.Event().wait(1)
        self.assertLess(number[0], 256)
        if not is_sanitized():
            self.assertLess(self.server.rss_bytes() - before, 128 << 20)
        stop.set()
        self.assertEqual(sum(1 for _ in call), number[0] + 1, "none is lost when it reads at last")


class StreamDrainTest(unittest.TestCase):
    def test_what_was_read_is_answered_and_then_the_stream_ends(self):
        server = Server("--threads", "1", "--drain-timeout", "10m", "--admin-listen", "127.0.0.1:0")
        self.addCleanup(server.stop, check=False)
        stream = Stream(server.stub)
        stream.send(1, attend_request(np.zeros((1 << 14, 64), np.float32)))

        # The request is being computed, or was. Processor time alone may be that of the start, or of receiving the request.
        def was_read():
            page = Scrape(server.admin_port)
            return page.value("attend_computing_requests") + page.sum("attend_computed_requests_total") > 0

        wait_until(was_read, "the request is computed")
        server.terminate()
        self.assertEqual(stream.receive().id, 1)
        end = stream.end()
        self.assertEqual((end.code, end.reason), (grpc.StatusCode.UNAVAILABLE, "DRAINING"))
        self.assertGreater(end.retry_seconds, 0)
        self.assertEqual(server.wait(), 0, server.log())


if __name__ == "__main__":
    unittest.main()
