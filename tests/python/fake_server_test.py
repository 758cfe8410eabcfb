"""The Python package against servers that are made to answer as no healthy one would: busy, slow, suspicious."""

import asyncio
import concurrent.futures
import contextlib
import copy
import threading
import time
import unittest

import attend
import attend.aio
import grpc
import numpy as np
from attend import _errors

from attend_testing.stubs import error_details_pb2, layers_grpc, layers_pb, pb, pb_grpc, status_pb2, tensor_pb2

X = np.arange(12, dtype=np.float32).reshape(3, 4)
RECEIPT = pb.Receipt(server_version="0.2.0", kernel="fake")


def packed(*details):
    status = status_pb2.Status(code=14, message="busy")
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


class Fake(pb_grpc.AttentionServiceServicer, layers_grpc.LayerServiceServicer):
    """Answers with the embeddings or the query, after `refusals` refusals; remembers metadata."""

    def __init__(self, receipt=RECEIPT, refusals=0, pushback="10"):
        self.receipt, self.refusals, self.pushback = receipt, refusals, pushback
        self.calls, self.metadata, self.deadlines = 0, [], []
        self.released, self.info_delay = threading.Event(), 0

    def note(self, context):
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        context.set_trailing_metadata((("server-timing", "receive;dur=1.0, queue;dur=2.0, compute;dur=3.0, send;dur=4.0"),))
        if self.calls <= self.refusals:
            details = packed(
                error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="attend.v1", metadata={"flag": "--max-queued-requests"}),
                error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500000000}),
            )
            context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback), ("grpc-status-details-bin", details)))
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    def Attend(self, request, context):
        self.note(context)
        if request.layer_name == "slow":
            self.released.wait(60)
        return pb.AttendResponse(output=request.embeddings, receipt=self.receipt)

    def ScaledDotProductAttention(self, request, context):
        self.note(context)
        return pb.ScaledDotProductAttentionResponse(output=request.query, receipt=self.receipt)

    def GetServerInfo(self, request, context):
        self.released.wait(self.info_delay)
        return pb.GetServerInfoResponse(version="0.1.7")

    def EstimateCost(self, request, context):
        if self.receipt is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no request")

    def StreamAttend(self, requests, context):
        if self.refusals:
            self.note(context)
        for request in requests:
            self.deadlines.append(request.timeout.ToNanoseconds() / 1e9)
            answer = pb.StreamAttendResponse(id=request.id, server_timing="compute;dur=3.0")
            if request.attend.layer_name == "missing":
                answer.status.CopyFrom(status_pb2.Status(code=5, message="no layer 'missing'"))
            elif request.attend.layer_name == "end":
                context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            else:
                answer.attend.CopyFrom(pb.AttendResponse(output=request.attend.embeddings, receipt=self.receipt))
            yield answer

    def GetLayer(self, request, context):
        self.note(context)
        return layers_pb.GetLayerResponse()

    def ListLayers(self, request, context):
        self.note(context)
        return layers_pb.ListLayersResponse()

    def DeleteLayer(self, request, context):
        self.note(context)
        return layers_pb.DeleteLayerResponse()

    def CreateLayer(self, requests, context):
        self.note(context)
        self.uploaded = list(requests)
        return layers_pb.CreateLayerResponse(layer=layers_pb.Layer(name="a", weight_types=[tensor_pb2.DATA_TYPE_BFLOAT16]))


@contextlib.contextmanager
def serving(*fakes):
    """A target of one server for each fake."""
    servers, ports = [], []
    for fake in fakes:
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
        pb_grpc.add_AttentionServiceServicer_to_server(fake, server)
        layers_grpc.add_LayerServiceServicer_to_server(fake, server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
        servers.append(server)
    try:
        yield ",".join(f"127.0.0.1:{port}" for port in ports)
    finally:
        for fake in fakes:
            fake.released.set()
        for server in servers:
            server.stop(None).wait()


class RetryTest(unittest.TestCase):
    def test_a_busy_server_is_asked_again_when_it_says(self):
        fake = Fake(refusals=2, pushback="300")
        with serving(fake) as target, attend.Client(target) as client:
            start = time.monotonic()
            np.testing.assert_array_equal(client.attend(X).output, X)
            self.assertEqual(fake.calls, 3)
            self.assertGreater(time.monotonic() - start, 0.55, "the pauses that the server asked for")

    def test_four_attempts_are_made_and_the_last_refusal_is_raised(self):
        fake = Fake(refusals=100)
        with serving(fake) as target, attend.Client(target) as client:
            with self.assertRaises(attend.UnavailableError) as raised:
                client.attend(X)
            self.assertEqual(fake.calls, 4)
            error = raised.exception
            self.assertEqual((error.reason, error.retry_after, error.field), ("QUEUE_FULL", 1.5, ""))
            self.assertEqual(error.metadata, {"flag": "--max-queued-requests"})
            self.assertEqual(error.code, grpc.StatusCode.UNAVAILABLE)
            self.assertIsInstance(error, ConnectionError)

    def test_a_request_of_many_megabytes_is_asked_again_too(self):
        fake = Fake(refusals=1)
        with serving(fake) as target, attend.Client(target) as client:
            # The fake has gRPC's own limit of 4 MiB for what it reads.
            large = np.zeros((700, 1024), np.float32)
            np.testing.assert_array_equal(client.attend(large).output, large)
        self.assertEqual(fake.calls, 2)

    def test_what_reads_is_asked_again_too(self):
        for call in (lambda client: client.layers.get("a"), lambda client: client.layers.list()):
            fake = Fake(refusals=1)
            with serving(fake) as target, attend.Client(target) as client:
                call(client)
            self.assertEqual(fake.calls, 2)

    def test_uploads_deletions_and_streams_are_not_repeated(self):
        for call in (
            lambda client: client.layers.create("a", b"bytes"),
            lambda client: client.layers.delete("a"),
            lambda client: list(client.stream([attend.requests.attend(X)])),
        ):
            fake = Fake(refusals=1)
            with serving(fake) as target, attend.Client(target) as client, self.assertRaises(attend.UnavailableError):
                call(client)
            self.assertEqual(fake.calls, 1)


class CallTest(unittest.TestCase):
    def test_every_call_has_a_deadline(self):
        fake = Fake()
        with serving(fake) as target, attend.Client(target, timeout=300) as client:
            client.attend(X)
            client.attend(X, timeout=100)
            client.layers.create("a", bytes(50 << 20))
            for actual, least, most in zip(fake.deadlines, (270, 70, 320), (301, 101, 351), strict=True):
                self.assertTrue(least < actual <= most, fake.deadlines)
            with self.assertRaises(attend.DeadlineExceededError) as raised:
                client.attend(X, layer="slow", timeout=0.2)
            self.assertIsInstance(raised.exception, TimeoutError)

    def test_all_that_a_call_does_has_one_deadline(self):
        class Pages(Fake):
            def ListLayers(self, request, context):
                self.calls += 1
                time.sleep(0.3)
                return layers_pb.ListLayersResponse(next_page_token="" if self.calls == 10 else "more")

        begun = time.monotonic()
        with serving(Pages()) as target, attend.Client(target, timeout=1) as client, self.assertRaises(attend.DeadlineExceededError):
            client.layers.list()
        self.assertLess(time.monotonic() - begun, 20)

    def test_timeouts_that_are_none_are_refused(self):
        async def asynchronous_stream(timeout):
            async with attend.aio.Client("127.0.0.1:1") as client:
                async for _ in client.stream([], timeout=timeout):
                    pass

        with attend.Client("127.0.0.1:1") as client:
            for timeout, error in (
                (0, ValueError), (-0.5, ValueError), (float("inf"), ValueError), (float("nan"), ValueError), (1e300, ValueError),
                ("5", TypeError), (True, TypeError),
            ):  # fmt: skip
                for call in (
                    lambda timeout: attend.Client("127.0.0.1:1", timeout=timeout),
                    lambda timeout: attend.aio.Client("127.0.0.1:1", timeout=timeout),
                    lambda timeout: client.attend(X, timeout=timeout),
                    lambda timeout: client.sdpa(X, X, X, timeout=timeout),
                    lambda timeout: client.layers.create("a", b"bytes", timeout=timeout),
                    lambda timeout: list(client.stream([], timeout=timeout)),
                    lambda timeout: asyncio.run(asynchronous_stream(timeout)),
                ):
                    with self.subTest(timeout=timeout), self.assertRaisesRegex(error, "^timeout is "):
                        call(timeout)

    def test_calls_go_round_all_addresses(self):
        fakes = [Fake(), Fake()]
        with serving(*fakes) as target, attend.Client(target) as client:
            end = time.monotonic() + 30
            while not all(fake.calls for fake in fakes) and time.monotonic() < end:
                client.attend(X)
        self.assertTrue(all(fake.calls for fake in fakes))

    def test_calls_go_round_a_list_with_names(self):
        async def asynchronous(target, fakes):
            async with attend.aio.Client(target) as client:
                end = time.monotonic() + 30
                while not all(fake.calls for fake in fakes) and time.monotonic() < end:
                    await client.attend(X)

        fakes = [Fake(), Fake()]
        with serving(*fakes) as target:
            named = target.replace("127.0.0.1", "localhost", 1)
            for target in (named, f"{named},[::1]:1"):  # The second: IPv4 addresses in a list of IPv6 addresses.
                with attend.Client(target) as client:
                    end = time.monotonic() + 30
                    while not all(fake.calls for fake in fakes) and time.monotonic() < end:
                        client.attend(X)
                self.assertTrue(all(fake.calls for fake in fakes), target)
                for fake in fakes:
                    fake.calls = 0
                asyncio.run(asynchronous(target, fakes))
                self.assertTrue(all(fake.calls for fake in fakes), target)
                for fake in fakes:
                    fake.calls = 0

    def test_a_name_in_a_list_that_has_no_address(self):
        async def asynchronous():
            attend.aio.Client("127.0.0.1:1,no..name:2")

        with self.assertRaisesRegex(attend.UnavailableError, r"cannot resolve 'no\.\.name'"):
            attend.Client("127.0.0.1:1,no..name:2")
        with self.assertRaisesRegex(attend.UnavailableError, r"cannot resolve 'no\.\.name'"):
            asyncio.run(asynchronous())

    def test_metadata_tells_who_calls_and_what_it_costs(self):
        fake = Fake()
        with serving(fake) as target, attend.Client(target, token=lambda: "secret") as client:
            client.sdpa(np.zeros((2, 3, 8), np.float32), np.zeros((2, 5, 8), np.float32), np.zeros((2, 5, 4), np.float32))
        self.assertEqual(fake.metadata[0]["authorization"], "Bearer secret")
        self.assertEqual(float(fake.metadata[0]["attend-cost-flops"]), 2 * (8 + 4) * 2 * 3 * 5)

    def test_a_token_that_grpc_would_log_is_refused_before_it_sees_it(self):
        async def asynchronous(target):
            async with attend.aio.Client(target, token=lambda: "SE\nCRET") as client:
                await client.attend(X)

        async def asynchronous_stream(target):
            async with attend.aio.Client(target, token=lambda: "SE\nCRET") as client:
                async for _ in client.stream([attend.requests.attend(X)]):
                    pass

        with serving(Fake()) as target, attend.Client(target, token=lambda: "SE\nCRET") as client:
            for call in (
                lambda: client.attend(X),
                lambda: list(client.stream([attend.requests.attend(X)])),
                lambda: client.layers.create("a", b"bytes"),
                lambda: asyncio.run(asynchronous(target)),
                lambda: asyncio.run(asynchronous_stream(target)),
            ):
                with self.assertRaisesRegex(ValueError, "the token has a blank or a character") as raised:
                    call()
                self.assertNotIn("CRET", str(raised.exception))

    def test_timing_and_receipt(self):
        with serving(Fake()) as target, attend.Client(target) as client:
            result = client.attend(X)
        self.assertEqual(result.timing, (1.0, 2.0, 3.0, 4.0))
        self.assertEqual(result.receipt, ("0.2.0", "fake", ""))

    def test_nobody_listens(self):
        with attend.Client("127.0.0.1:1") as client, self.assertRaises(attend.UnavailableError) as raised:
            client.attend(X, timeout=60)
        self.assertEqual(raised.exception.reason, "")

    def test_threads_share_a_client(self):
        with serving(Fake()) as target, attend.Client(target) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
            outputs = list(pool.map(lambda i: client.attend(X + i).output, range(200)))
        for i, output in enumerate(outputs):
            np.testing.assert_array_equal(output, X + i)


class DetailsTest(unittest.TestCase):
    """What a proxy or a stranger may put into an error's details."""

    def test_details_that_cannot_be_read_leave_the_error_as_it_is(self):
        status = status_pb2.Status(code=5, message="gone")
        status.details.add(type_url="type.googleapis.com/google.rpc.BadRequest", value=b"\xff")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="LAYER_NOT_FOUND"))
        for details, reason in ((b"\xff\xff", ""), (b"\x0a", ""), (status.SerializeToString(), "LAYER_NOT_FOUND")):

            class Damaged(Fake):
                def Attend(self, request, context, details=details):
                    context.set_trailing_metadata((("grpc-status-details-bin", details),))
                    context.abort(grpc.StatusCode.NOT_FOUND, "gone")

            with self.subTest(details), serving(Damaged()) as target, attend.Client(target) as client:
                with self.assertRaises(attend.NotFoundError) as raised:
                    client.attend(X)
                self.assertEqual((raised.exception.message, raised.exception.reason), ("gone", reason))

    def test_a_status_in_a_stream_that_cannot_be_read(self):
        error = _errors.error_of_status(b"\xff")
        self.assertEqual((error.code, error.reason), (grpc.StatusCode.UNKNOWN, ""))


class CloseTest(unittest.TestCase):
    def test_a_closed_client_says_so(self):
        async def asynchronous(target):
            client = attend.aio.Client(target)
            await client.close()
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                await client.attend(X)
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                [answer async for answer in client.stream([])]

        with serving(Fake()) as target:
            client = attend.Client(target)
            client.close()
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                client.attend(X)
            with self.assertRaisesRegex(ValueError, "the client is closed"):
                list(client.stream([]))
            asyncio.run(asynchronous(target))

    def test_closing_during_a_call_fails_the_call_and_does_not_cancel_the_task(self):
        async def asynchronous(target):
            client = attend.aio.Client(target)
            call = asyncio.ensure_future(client.attend(X, layer="slow"))
            await asyncio.sleep(0.2)
            await client.close()
            with self.assertRaisesRegex(attend.AttendError, "the client was closed"):
                await call
            async with attend.aio.Client(target) as client:
                cancelled = asyncio.ensure_future(client.attend(X, layer="slow"))
                await asyncio.sleep(0.2)
                cancelled.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await cancelled

        with serving(Fake()) as target:
            asyncio.run(asynchronous(target))

    def test_copies_of_what_holds_a_client_hold_the_same(self):
        with serving(Fake()) as target, attend.Client(target) as client:
            self.assertIs(copy.deepcopy({"client": client})["client"], client)


class StreamTest(unittest.TestCase):
    def test_answers_name_their_requests_and_failures_end_nothing(self):
        fake = Fake()
        with serving(fake) as target, attend.Client(target, timeout=7) as client:
            layers = [None, "missing", None]
            requests = [attend.requests.attend(X + i, layer=layer, timeout=i or None) for i, layer in enumerate(layers)]
            answers = {answer.index: answer for answer in client.stream(requests)}
        np.testing.assert_array_equal(answers[2].result.output, X + 2)
        self.assertEqual(answers[0].result.timing.compute, 3.0)
        self.assertIsInstance(answers[1].error, attend.NotFoundError)
        with self.assertRaisesRegex(attend.NotFoundError, "no layer 'missing'"):
            answers[1].result  # noqa: B018
        self.assertEqual(fake.deadlines, [7, 1, 2])

    def test_timeouts_of_requests_are_sent_to_the_nanosecond(self):
        fake, timeouts = Fake(), (np.float32(0.5), 1.999999999, 1e-12, 3e11)
        with serving(fake) as target, attend.Client(target) as client:
            list(client.stream(attend.requests.attend(X, timeout=timeout) for timeout in timeouts))
        self.assertEqual(fake.deadlines, [0.5, 1.999999999, 1e-9, 3e11])

    def test_the_end_of_the_stream_and_errors_of_the_iterable_are_raised(self):
        def broken():
            yield attend.requests.attend(X)
            raise KeyError("mine")

        def stops():
            yield attend.requests.attend(X)
            raise SystemExit(3)

        async def asynchronous(requests):
            async with attend.aio.Client(target) as client:
                return [answer async for answer in client.stream(requests)]

        with serving(Fake()) as target, attend.Client(target) as client:
            for requests, error in (
                (lambda: [attend.requests.attend(X, layer="end")], attend.UnavailableError),
                (broken, KeyError),
                (stops, SystemExit),
                (lambda: [X], TypeError),
            ):
                with self.assertRaises(error):
                    list(client.stream(requests()))
                with self.assertRaises(error):
                    asyncio.run(asynchronous(requests()))

    def test_a_stream_that_nobody_reads_on_is_cancelled(self):
        taken = []

        def endless():
            while True:
                taken.append(None)
                yield attend.requests.attend(X)

        with serving(Fake()) as target, attend.Client(target) as client:
            answers = client.stream(endless())
            next(answers)
            answers.close()
            end = time.monotonic() + 30
            while (before := len(taken)) >= 0 and time.monotonic() < end:
                time.sleep(0.2)
                if len(taken) == before:
                    break
            self.assertEqual(len(taken), before, "requests are still taken")

    def test_asynchronous_requests(self):
        async def main():
            async def requests():
                for i in range(50):
                    await asyncio.sleep(0)
                    yield attend.requests.attend(X + i)

            async with attend.aio.Client(target) as client:
                return {answer.index: answer.result.output async for answer in client.stream(requests())}

        with serving(Fake()) as target:
            outputs = asyncio.run(main())
        for i in range(50):
            np.testing.assert_array_equal(outputs[i], X + i)


if __name__ == "__main__":
    unittest.main()
