"""The Python package against a server of version 0.1, which ignores what it does not know."""

import asyncio
import contextlib
import functools
import time
import unittest

import attend
import attend.aio
import grpc
import numpy as np

from fake_server_test import Fake, X, serving


def answered(call):
    """`call(timeout)` with so long a timeout that the fake's first answer comes in time."""
    for timeout in (0.4, 1.6, 6.4):
        with contextlib.suppress(attend.DeadlineExceededError):
            return call(timeout)
    return call(25.6)


def asynchronous_attend(target, timeout):
    async def call():
        async with attend.aio.Client(target) as client:
            await client.attend(X, scale=0.5, timeout=timeout)

    asyncio.run(call())


def asynchronous_stream(target, timeout):
    async def call():
        async with attend.aio.Client(target) as client:
            async for _ in client.stream([attend.requests.attend(X, scale=0.5)], timeout=timeout):
                pass

    asyncio.run(call())


class OldServerTest(unittest.TestCase):
    """Version 0.1 ignores what it does not know, and sends no receipt."""

    def old_server_refused(self, call, fields):
        with serving(Fake(receipt=None)) as target:
            with attend.Client(target) as client, self.assertRaisesRegex(attend.ServerTooOldError, "version 0.1.7") as raised:
                call(client)
            self.assertEqual((raised.exception.fields, raised.exception.server_version), (fields, "0.1.7"))

            async def asynchronous():
                async with attend.aio.Client(target) as client:
                    await call(client)

            with self.assertRaises(attend.ServerTooOldError):
                asyncio.run(asynchronous())

    def test_what_it_would_ignore_is_refused_with_its_version(self):
        mask = np.ones(3, bool)
        wide = X.astype(np.float64)
        self.old_server_refused(lambda client: client.sdpa(X, X, X, scale=0.5, softcap=3.0), ("scale", "softcap"))
        self.old_server_refused(lambda client: client.attend(X, key_mask=mask), ("key_mask",))
        self.old_server_refused(lambda client: client.sdpa(X, X, X, precision="exact"), ("precision",))
        self.old_server_refused(lambda client: client.sdpa(X, X, X, layout="bthe"), ("layout",))
        self.old_server_refused(lambda client: client.attend(X, layer="a", layer_etag="e"), ("layer_etag",))
        self.old_server_refused(lambda client: client.sdpa(wide, wide, wide, sinks=np.zeros(1)), ("sinks",))
        self.old_server_refused(lambda client: client.estimate(attend.requests.attend(X)), ("EstimateCost",))

    def test_a_server_that_is_slow_to_say_its_version_is_too_old_all_the_same(self):
        """What is left of the call's timeout is for the version."""
        fake = Fake(receipt=None)
        fake.info_delay = 120
        config = {"options": {"scale": 0.5}}
        begun = time.monotonic()
        with serving(fake) as target, attend.Client(target) as client:
            for call in (
                lambda client, timeout: client.attend(X, scale=0.5, timeout=timeout),
                lambda client, timeout: client.estimate(attend.requests.attend(X, timeout=timeout)),
                lambda client, timeout: client.layers.create("a", b"bytes", config=config, timeout=timeout),
                lambda client, timeout: list(client.stream([attend.requests.attend(X, scale=0.5)], timeout=timeout)),
            ):
                with self.assertRaisesRegex(attend.ServerTooOldError, "older than 0.2.*(scale|EstimateCost)") as raised:
                    answered(functools.partial(call, client))
                self.assertEqual(raised.exception.server_version, "")
            for call in (asynchronous_attend, asynchronous_stream):
                with self.assertRaises(attend.ServerTooOldError):
                    answered(functools.partial(call, target))
        self.assertLess(time.monotonic() - begun, 100)

    def test_a_layer_is_not_even_uploaded(self):
        fake = Fake(receipt=None)
        with serving(fake) as target, attend.Client(target) as client:
            with self.assertRaisesRegex(attend.ServerTooOldError, "config.options.scale"):
                client.layers.create("a", b"bytes", config={"options": {"scale": 0.5}})
            self.assertEqual(fake.calls, 0)
            client.layers.create("a", b"bytes", config={"num_heads": 2})

    def test_a_caller_who_may_not_ask_for_costs_creates_layers_all_the_same(self):
        """A server that refuses the question knows it, so it is not too old. The role `layers` does not admit to EstimateCost."""
        config = {"options": {"scale": 0.5}}

        class Refusing(Fake):
            code = None

            def EstimateCost(self, request, context):
                context.abort(self.code, "refused")

        async def asynchronous(target):
            async with attend.aio.Client(target) as client:
                await client.layers.create("a", b"bytes", config=config)

        fake = Refusing()
        with serving(fake) as target, attend.Client(target) as client:
            for fake.code in (
                grpc.StatusCode.PERMISSION_DENIED,
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INTERNAL,
            ):
                with self.subTest(fake.code.name):
                    fake.calls = 0
                    client.layers.create("a", b"bytes", config=config)
                    asyncio.run(asynchronous(target))
                    self.assertEqual(fake.calls, 2)
            fake.calls = 0
            for fake.code, error in (
                (grpc.StatusCode.UNAVAILABLE, attend.UnavailableError),
                (grpc.StatusCode.DEADLINE_EXCEEDED, attend.DeadlineExceededError),
                (grpc.StatusCode.CANCELLED, attend.AttendError),
            ):
                with self.subTest(fake.code.name):
                    with self.assertRaisesRegex(error, fake.code.name):
                        client.layers.create("a", b"bytes", config=config)
                    with self.assertRaisesRegex(error, fake.code.name):
                        asyncio.run(asynchronous(target))
            self.assertEqual(fake.calls, 0, "nothing is uploaded while nobody has said what the server knows")

    def test_in_a_stream(self):
        requests = [attend.requests.attend(X), attend.requests.attend(X, softcap=1.0)]
        with (
            serving(Fake(receipt=None)) as target,
            attend.Client(target) as client,
            self.assertRaisesRegex(attend.ServerTooOldError, "0.1.7.*softcap"),
        ):
            list(client.stream(requests))

    def test_what_it_knows_is_answered_without_a_receipt(self):
        with serving(Fake(receipt=None)) as target, attend.Client(target) as client:
            self.assertIsNone(client.attend(X, causal=True, valid_lengths=[3]).receipt)


if __name__ == "__main__":
    unittest.main()
