"""Tenants: whose layers a caller sees, calls and changes; and what a tenant may use."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import socket
import tempfile
import threading
import unittest

import grpc
import numpy as np

from attend_testing.admin import Scrape
from attend_testing.errors import call_failure, failure_of
from attend_testing.http2 import PREFACE
from attend_testing.layers import Weights, chunks, embeddings, header
from attend_testing.load import wait_until, wait_until_computing
from attend_testing.requests import sdpa_request
from attend_testing.server import SOURCE_DIR, Server, is_sanitized
from attend_testing.stubs import layers_grpc, layers_pb, pb, pb_grpc
from attend_testing.tensors import assert_same_bits, from_tensor, to_tensor

Code = grpc.StatusCode
DIM = 16
NOT_FOUND = (Code.NOT_FOUND, "LAYER_NOT_FOUND")
SHORT = 128 if is_sanitized() else 512  # Tokens.
PATIENT = 100_000  # Seconds: so long a deadline that no prediction refuses a call for it.


class Caller:
    """One principal's calls, by its token, over a connection of its own."""

    def __init__(self, test, server, name):
        self._channel = server.new_channel()
        test.addCleanup(self._channel.close)
        self.metadata = (("authorization", f"Bearer {name}-token"),)
        self.attention = pb_grpc.AttentionServiceStub(self._channel)
        self.layers = layers_grpc.LayerServiceStub(self._channel)

    def call(self, method, request):
        return method(request, metadata=self.metadata, timeout=PATIENT)

    def failure(self, method, request):
        failure = call_failure(lambda message, timeout: self.call(method, message), request)
        return failure.code, failure.reason

    def upload(self, name, weights, **fields):
        return self.call(self.layers.CreateLayer, iter([header(name, **fields), *chunks(weights.file())])).layer

    def attend(self, name, **fields):
        request = pb.AttendRequest(embeddings=to_tensor(embeddings(DIM)), layer_name=name, **fields)
        return from_tensor(self.call(self.attention.Attend, request).output)

    def names(self, **fields):
        return [layer.name for layer in self.call(self.layers.ListLayers, layers_pb.ListLayersRequest(**fields)).layers]

    def etag(self, name):
        return self.call(self.layers.GetLayer, layers_pb.GetLayerRequest(name=name)).layer.etag


def uses(name):
    """Every method that takes a layer's name, as (method of a Caller, request)."""
    attend = pb.AttendRequest(embeddings=to_tensor(embeddings(DIM)), layer_name=name)
    return {
        "Attend": lambda c: (c.attention.Attend, attend),
        "EstimateCost": lambda c: (c.attention.EstimateCost, pb.EstimateCostRequest(attend=attend)),
        "GetLayer": lambda c: (c.layers.GetLayer, layers_pb.GetLayerRequest(name=name)),
        "DeleteLayer": lambda c: (c.layers.DeleteLayer, layers_pb.DeleteLayerRequest(name=name)),
    }


def stream_outcome(caller, name):
    request = pb.StreamAttendRequest(id=1, attend=pb.AttendRequest(embeddings=to_tensor(embeddings(DIM)), layer_name=name))
    answer = next(caller.attention.StreamAttend(iter([request]), metadata=caller.metadata, timeout=60))
    return answer.status.code if answer.HasField("status") else 0


def principal(name, tenant=None, **fields):
    token = {"sha256": hashlib.sha256(f"{name}-token".encode()).hexdigest()}
    entry = {"name": name, "roles": ["compute", "layers", "observe"], "tokens": [token], **fields}
    return {**entry, "tenant": tenant} if tenant else entry


PRINCIPALS = [principal("ann", "acme"), principal("art", "acme"), principal("bob", "beta"), principal("cat")]


class TenantTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="attend-tenants-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.data = self.folder / "data"

    def start(self, *flags, file=None, **settings):
        path = self.folder / "principals.json"
        path.write_text(json.dumps(file or {"principals": PRINCIPALS}))
        server = Server("--principals", str(path), "--anonymous-roles", "none", *flags, **settings)
        self.addCleanup(lambda: server.alive() and server.stop())
        return server

    def callers(self, server):
        return [Caller(self, server, entry["name"]) for entry in PRINCIPALS]


# The methods that know nothing of layers' names, and the two that are tried by hand below.
OTHERS = {"ScaledDotProductAttention", "GetServerInfo", "StreamAttend", "CreateLayer", "ListLayers"}


class LayersTest(TenantTestCase):
    def test_every_method_is_tried(self):
        services = (*pb.DESCRIPTOR.services_by_name.values(), *layers_pb.DESCRIPTOR.services_by_name.values())
        self.assertEqual({method.name for service in services for method in service.methods}, OTHERS | set(uses("a")))

    def test_what_belongs_to_another_tenant_is_not_found_by_any_method(self):
        ann, art, bob, cat = self.callers(self.start())
        etag = ann.upload("secret", Weights(1)).etag
        for caller in (bob, cat):
            for note, use in uses("secret").items():
                self.assertEqual(caller.failure(*use(caller)), NOT_FOUND, note)
                self.assertEqual(caller.failure(*uses("nobodys")[note](caller)), NOT_FOUND, "as one that nobody has")
            self.assertEqual(stream_outcome(caller, "secret"), Code.NOT_FOUND.value[0])
            self.assertEqual(caller.names(), [])
            replaced = [header("secret", replace=True, etag=etag), *chunks(Weights(2).file())]
            self.assertEqual(caller.failure(caller.layers.CreateLayer, iter(replaced)), (Code.ABORTED, "ETAG_MISMATCH"))
        self.assertEqual((art.names(), art.etag("secret")), (["secret"], etag))
        self.assertEqual(stream_outcome(art, "secret"), 0)

    def test_one_name_stands_for_a_layer_of_each_tenant(self):
        ann, art, bob, cat = self.callers(self.start())
        for caller, seed in ((ann, 1), (bob, 2), (cat, 3)):
            caller.upload("layer", Weights(seed))
        outputs = [caller.attend("layer") for caller in (ann, bob, cat)]
        assert_same_bits(art.attend("layer"), outputs[0], "of the same tenant")
        self.assertEqual(len({output.tobytes() for output in outputs}), 3)
        bob.call(bob.layers.DeleteLayer, layers_pb.DeleteLayerRequest(name="layer"))
        assert_same_bits(ann.attend("layer"), outputs[0], "another tenant's was deleted")
        assert_same_bits(bob.attend("layer"), outputs[2], "the shared one, without one of its own")

    def test_shared_layers_are_everybodys_to_call_and_their_own_tenants_to_change(self):
        ann, _, bob, cat = self.callers(self.start("--layer", "configured=init:1:16"))
        etag = cat.upload("common", Weights(3)).etag
        for caller in (ann, bob, cat):
            self.assertEqual((caller.names(), caller.etag("common")), (["common", "configured"], etag))
            self.assertEqual(stream_outcome(caller, "common"), 0)
        for name in ("common", "configured"):
            delete = layers_pb.DeleteLayerRequest(name=name)
            self.assertEqual(ann.failure(ann.layers.DeleteLayer, delete), NOT_FOUND)
        self.assertEqual(cat.failure(cat.layers.DeleteLayer, delete), (Code.FAILED_PRECONDITION, "LAYER_READ_ONLY"))
        own = ann.upload("common", Weights(4)).etag  # No `replace`: the shared one is not replaced.
        self.assertEqual((ann.etag("common"), bob.etag("common")), (own, etag))

    def test_pages_of_both_tenants_are_one_list_in_order_without_doubles(self):
        ann, _, bob, cat = self.callers(self.start())
        for caller, names in ((ann, ("a", "c", "e", "f")), (bob, ("b", "x")), (cat, ("b", "c", "d", "g"))):
            for name in names:
                caller.upload(name, Weights(1))
        expected = ["a", "b", "c", "d", "e", "f", "g"]
        for size in range(1, 9):
            names, token = [], ""
            while True:
                request = layers_pb.ListLayersRequest(page_size=size, page_token=token)
                page = ann.call(ann.layers.ListLayers, request)
                self.assertLessEqual(len(page.layers), size)
                names += [layer.name for layer in page.layers]
                token = page.next_page_token
                if not token:
                    break
            self.assertEqual(names, expected, size)
        self.assertEqual(ann.names(name_prefix="c"), ["c"])
        self.assertEqual(bob.names(), ["b", "c", "d", "g", "x"])

    def test_tenants_survive_a_restart_and_the_layers_of_0_1_are_shared(self):
        shutil.copytree(SOURCE_DIR / "tests/data/layers_of_0_1/layers", self.data / "layers")
        old = sorted(path.name.removesuffix(".layer") for path in (self.data / "layers").iterdir())
        server = self.start("--data-dir", str(self.data))
        ann, _, bob, cat = self.callers(server)
        outputs = [caller.upload("mine/0", Weights(seed)) and caller.attend("mine/0") for caller, seed in ((ann, 1), (bob, 2))]
        self.assertEqual(cat.names(), old)
        server.stop()
        files = sorted(path.name for path in (self.data / "layers").iterdir())
        self.assertEqual([name for name in files if "mine" in name], ["acme@mine%0.layer", "beta@mine%0.layer"])
        # A file that was given another tenant's name is not that tenant's layer.
        shutil.copy(self.data / "layers/acme@mine%0.layer", self.data / "layers/beta@stolen.layer")
        shutil.copy(self.data / "layers/acme@mine%0.layer", self.data / "layers/mine%0.layer")
        ann, _, bob, cat = self.callers(self.start("--data-dir", str(self.data), log_level="off"))
        for caller, output in ((ann, outputs[0]), (bob, outputs[1])):
            assert_same_bits(caller.attend("mine/0"), output, "after a restart")
            self.assertEqual(caller.names(), sorted([*old, "mine/0"]))
        self.assertEqual(cat.names(), old)

    def test_layers_of_tenants_that_no_file_names_any_more_are_counted(self):
        flags = ("--data-dir", str(self.data), "--admin-listen", "127.0.0.1:0")
        server = self.start(*flags)
        ann, _, _, cat = self.callers(server)
        sizes = [caller.upload("a", Weights(1)).memory_bytes for caller in (ann, cat)]
        server.stop()
        page = Scrape(self.start(*flags, file={"principals": [principal("cat")]}).admin_port)
        self.assertEqual(page.value("attend_tenant_layers_bytes", tenant="shared"), sizes[1])
        self.assertEqual(page.value("attend_tenant_layers_bytes", tenant="_other"), sizes[0])
        self.assertEqual(page.sum("attend_tenant_layers_bytes"), page.value("attend_memory_bytes", user="layers"))

    def test_the_audit_names_the_tenant_once_for_each_event(self):
        server = self.start("--log-format", "json", log_level="info")
        ann, *_ = self.callers(server)
        etag = ann.upload("a", Weights(1)).etag
        ann.call(ann.layers.DeleteLayer, layers_pb.DeleteLayerRequest(name="a"))
        records = [r for r in map(json.loads, server.stop().splitlines()) if r["message"] == "audit"]
        self.assertEqual([(r["event"], r["principal"], r["tenant"], r["layer"], r["etag"]) for r in records],
                         [(event, "ann", "acme", "a", etag) for event in ("layer created", "layer deleted")])  # fmt: skip

    def test_a_tenant_that_is_none_is_refused_at_the_start(self):
        for bad in ("", "Acme", "a/b", "a@b", "-a", "x" * 64, 7):
            with self.subTest(bad), self.assertRaisesRegex(RuntimeError, "--principals: .*'p': tenant: a tenant's name"):
                self.start(file={"principals": [{"name": "p", "tenant": bad}]})


def endless(**fields):
    """More than 10^13 operations: minutes of every core."""
    return pb.AttendRequest(embeddings=to_tensor(np.zeros((1 << 20, 1), np.float32)), **fields)


def short_call(element_type=np.float32, tokens=SHORT, dim=64):
    """67 million operations in 400 kB, or half a million in 70 kB, so that a sanitized server on a busy machine, too,
    predicts that it may interrupt another call: to be decoded by a compute thread."""
    numbers = np.random.default_rng(1).standard_normal((1, tokens, dim)).astype(element_type)
    queries = 16 if is_sanitized() and tokens <= SHORT else tokens
    return sdpa_request(numbers[:, :queries], numbers, numbers)


class LimitsTest(TenantTestCase):
    def limited(self, *flags, **limits):
        file = {"tenants": [{"name": "acme", **limits}, {"name": "beta"}], "principals": PRINCIPALS}
        server = self.start("--threads", "1", *flags, file=file)
        return server, *self.callers(server)

    def exhausted(self, caller, method, request, quota):
        failure = call_failure(lambda message, timeout: caller.call(method, message), request)
        self.assertEqual((failure.code, failure.reason), (Code.RESOURCE_EXHAUSTED, "TENANT_QUOTA"), failure.message)
        self.assertEqual(failure.metadata["quota"], quota)
        self.assertGreater(failure.retry_seconds, 0)
        return failure.retry_seconds

    def test_requests_in_flight(self):
        server, ann, art, bob, _ = self.limited("--max-queued-requests", "8", max_requests_in_flight=1)
        held = ann.attention.Attend.future(endless(), metadata=ann.metadata, timeout=PATIENT)
        wait_until_computing(server)
        for caller in (ann, art):
            self.exhausted(caller, caller.attention.ScaledDotProductAttention, short_call(), "max_requests_in_flight")
        bob.call(bob.attention.ScaledDotProductAttention, short_call())
        held.cancel()
        wait_until(lambda: not isinstance(outcome(art, short_call()), Exception), "the tenant has its place back")

    def test_memory_in_flight(self):
        _, ann, _, bob, _ = self.limited(max_memory_in_flight_bytes=100_000)
        failure = call_failure(lambda message, timeout: ann.call(ann.attention.ScaledDotProductAttention, message), short_call(tokens=512))
        self.assertEqual((failure.code, failure.reason), (Code.RESOURCE_EXHAUSTED, "TENANT_QUOTA"), failure.message)
        self.assertEqual(failure.metadata["quota"], "max_memory_in_flight_bytes")
        self.assertIsNone(failure.retry_seconds, "no wait helps")
        ann.call(ann.attention.ScaledDotProductAttention, short_call(tokens=8))
        bob.call(bob.attention.ScaledDotProductAttention, short_call())

    def test_compute_rate(self):
        """So small a rate that the tenant gets its time back a minute after a call, however fast the machine."""
        _, ann, art, bob, _ = self.limited(max_compute_threads=0.001)
        long = short_call(tokens=16 * SHORT)
        wait_until(lambda: isinstance(outcome(ann, long), Exception), "what the tenant may use is used up")
        for tokens in (8, 512):  # On the polling thread, and queued.
            retry = self.exhausted(art, art.attention.ScaledDotProductAttention, short_call(tokens=tokens), "max_compute_threads")
            self.assertLess(retry, 36000)
        for _ in range(20):
            bob.call(bob.attention.ScaledDotProductAttention, short_call())

    def test_compute_rate_counts_what_cannot_be_decoded(self):
        _, ann, art, bob, _ = self.limited(max_compute_threads=0.001)
        wrong = short_call()
        wrong.key.shape[1] += 1

        def is_over(caller):
            failure = call_failure(lambda message, timeout: caller.call(caller.attention.ScaledDotProductAttention, message), wrong)
            return failure.reason == "TENANT_QUOTA" and failure.metadata["quota"] == "max_compute_threads" and failure.retry_seconds > 0

        self.assertFalse(is_over(art), "INVALID_ARGUMENT at first")
        # A call costs so little that the tenant soon has it back.
        wait_until(lambda: is_over(ann) and is_over(art), "what the tenant may use is used up")
        bob.call(bob.attention.ScaledDotProductAttention, short_call())

    def test_compute_time_comes_again(self):
        _, ann, art, _, _ = self.limited(max_compute_threads=0.1)
        long = short_call(tokens=4 * SHORT)
        wait_until(lambda: isinstance(outcome(ann, long), Exception), "what the tenant may use is used up")
        wait_until(lambda: not isinstance(outcome(art, short_call(tokens=8)), Exception), "its time comes again")

    def test_memory_of_layers(self):
        with self.start() as server:
            layer_bytes = Caller(self, server, "ann").upload("a", Weights(1)).memory_bytes
        _, ann, art, bob, cat = self.limited(max_layers_bytes=layer_bytes * 3 // 2)
        ann.upload("a", Weights(1))
        self.exhausted(art, art.layers.CreateLayer, iter([header("b"), *chunks(Weights(2).file())]), "max_layers_bytes")
        art.upload("a", Weights(2), replace=True)
        for caller in (bob, cat):
            caller.upload("a", Weights(1))
            caller.upload("b", Weights(1))
        ann.call(ann.layers.DeleteLayer, layers_pb.DeleteLayerRequest(name="a"))
        art.upload("b", Weights(2))

    def test_limits_change_when_the_file_does(self):
        server, ann, *_ = self.limited(max_memory_in_flight_bytes=10_000_000)
        ann.call(ann.attention.ScaledDotProductAttention, short_call())
        file = {"tenants": [{"name": "acme", "max_memory_in_flight_bytes": 1}, {"name": "beta"}], "principals": PRINCIPALS}
        (self.folder / "principals.json").write_text(json.dumps(file))
        server.hang_up()
        wait_until(lambda: isinstance(outcome(ann, short_call()), Exception), "the new limit holds")

    def test_a_list_of_tenants_that_is_wrong_is_refused(self):
        for tenants, needle in {
            '[{"name": "acme"}]': "the tenant 'beta' is not on the list",
            '[{"name": "acme"}, {"name": "beta"}, {"name": "beta"}]': "'beta' is given twice",
            '[{"name": "beta", "weigth": 2}]': "'weigth'",
            '[{"name": "beta", "weight": 0}]': "weight is no number",
            '[{"name": "beta", "weight": "2"}]': "weight is no number",
            '[{"name": "beta", "max_layers_bytes": -1}]': "max_layers_bytes is no whole number",
            '[{"name": "beta", "max_requests_in_flight": 1.5}]': "max_requests_in_flight is no whole number",
            '{"beta": {}}': "'tenants' is no list",
        }.items():
            with self.subTest(tenants), self.assertRaisesRegex(RuntimeError, f"--principals: .*{needle}"):
                self.start(file={"tenants": json.loads(tenants), "principals": PRINCIPALS})


def outcome(caller, request):
    """The answer, or the error."""
    try:
        return caller.call(caller.attention.ScaledDotProductAttention, request)
    except grpc.RpcError as error:
        return error


class FairnessTest(TenantTestCase):
    def test_short_calls_interrupt_another_tenants_long_one(self):
        server = self.start("--threads", "1")
        ann, art, bob, _ = self.callers(server)
        expected = outcome(bob, short_call())
        for long_call in (endless(), endless(options=pb.AttentionOptions(top_k=1), outputs=[pb.OUTPUT_KIND_TOP_ATTENTION_WEIGHTS])):
            held = ann.attention.Attend.future(long_call, metadata=ann.metadata, timeout=PATIENT)
            wait_until_computing(server)
            for request in (short_call(), short_call(np.float64, tokens=64 if is_sanitized() else 256)):
                for _ in range(3):
                    bob.call(bob.attention.ScaledDotProductAttention, request)
            # The same bits, wherever they are computed.
            got = outcome(bob, short_call())
            self.assertEqual(got.output.data, expected.output.data)
            self.assertFalse(held.done())
            own = art.attention.ScaledDotProductAttention.future(short_call(), metadata=art.metadata, timeout=PATIENT)
            bob.call(bob.attention.ScaledDotProductAttention, short_call())
            self.assertFalse(own.done(), "a tenant's own calls wait for each other")
            held.cancel()
            own.result()

    def test_a_full_queue_has_room_for_another_tenant(self):
        server = self.start("--threads", "1", "--max-queued-requests", "8")
        ann, _, bob, _ = self.callers(server)
        calls = [ann.attention.Attend.future(endless(), metadata=ann.metadata, timeout=PATIENT) for _ in range(12)]
        wait_until(lambda: sum(call.done() for call in calls) == 3, "one computes and eight wait")
        bob.call(bob.attention.ScaledDotProductAttention, short_call())
        wait_until(lambda: sum(call.done() for call in calls) == 4, "one gave way")
        for call in calls:
            call.cancel()

    def test_one_caller_has_all_uploads_until_another_wants_one(self):
        stop, weights = threading.Event(), Weights(DIM)
        self.addCleanup(stop.set)

        def waiting(name):
            """Slow, and not so silent that it would be ended for that."""
            yield header(name)
            for chunk in chunks(weights.file(), 16):
                yield chunk
                stop.wait(0.5)

        server = self.start("--max-uploads", "4", "--min-transfer-rate", "1", "--admin-listen", "127.0.0.1:0")
        ann, _, bob, _ = self.callers(server)

        def wait_for(count):
            wait_until(lambda: Scrape(server.admin_port).value("attend_uploads") == count, f"{count} uploads have a slot")

        names = [f"layer{i}" for i in range(4)]
        uploads = []
        for i, name in enumerate(names):  # One after the other, so that the last is the newest.
            uploads.append(ann.layers.CreateLayer.future(waiting(name), metadata=ann.metadata, timeout=PATIENT))
            wait_for(i + 1)
        bob.upload("layer", weights)
        wait_until(uploads[3].done, "the newest has given way")
        self.assertEqual(failure_of(uploads[3]).reason, "TOO_MANY_UPLOADS")
        self.assertFalse(any(upload.done() for upload in uploads[:3]))
        wait_for(3)  # Bob's has ended.
        # Who has a quarter or more takes no further one from others, and has three of four.
        fifth = ann.layers.CreateLayer.future(waiting("fifth"), metadata=ann.metadata, timeout=PATIENT)
        wait_for(4)
        with self.assertRaises(grpc.RpcError) as refused:
            ann.upload("sixth", weights)
        self.assertEqual(failure_of(refused.exception).reason, "TOO_MANY_UPLOADS")
        stop.set()
        for upload, name in zip([*uploads[:3], fifth], [*names[:3], "fifth"], strict=True):
            self.assertEqual(upload.result().layer.name, name)
        self.assertEqual(sorted(bob.names()), ["layer"])

    def test_one_address_has_all_connections_until_another_wants_some(self):
        server = self.start("--max-connections", "8", "--handshake-timeout", "5m")
        first = [connect(server, "127.0.0.1") for _ in range(8)]
        self.assertEqual([is_open(one) for one in first], [True] * 8)
        others = [connect(server, "127.0.0.2") for _ in range(2)]
        wait_until(lambda: sum(map(is_open, first)) == 6, "two of eight gave way")
        self.assertEqual([is_open(one) for one in first], [True] * 6 + [False] * 2, "the newest")
        self.assertEqual([is_open(one) for one in others], [True] * 2)
        third = connect(server, "127.0.0.2")  # It has its quarter.
        wait_until(lambda: not is_open(third), "the third is closed")
        for one in (*first, *others, third):
            one.close()


def connect(server, source):
    """A connection from the loopback address `source` on which the server has begun to speak."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60, source_address=(source, 0))
    connection.settimeout(60)
    with contextlib.suppress(ConnectionError):
        connection.sendall(PREFACE)
        connection.recv(1)
    return connection


def is_open(connection):
    connection.settimeout(0)
    try:
        while True:
            if not connection.recv(4096):
                return False
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


class ProxyTest(TenantTestCase):
    def identity(self, *flags, header=None, token=None):
        """(code, reason) of a call that needs the role `layers`, which entry `p` alone has."""
        file = {"principals": [{"name": "p", "tenant": "t", "roles": ["layers"], "certificates": ["uri:spiffe://x/p", "dns:p.x"]}]}
        server = self.start(*flags, file=file)
        metadata = [("x-forwarded-client-cert", value) for value in (header if isinstance(header, list) else [header]) if value]
        request = layers_pb.ListLayersRequest()
        failure = None
        try:
            server.layers.ListLayers(request, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            failure = failure_of(error)
        server.stop()
        return (failure.code, failure.reason) if failure else "ok"

    def test_the_header_counts_from_a_trusted_proxy_alone(self):
        right = "By=spiffe://x/proxy;Hash=0a;URI=spiffe://x/p"
        trusted = ("--trusted-proxies", "127.0.0.0/8")
        nobody, bad = (Code.UNAUTHENTICATED, "NO_CREDENTIAL"), (Code.UNAUTHENTICATED, "BAD_CREDENTIAL")
        self.assertEqual(self.identity(*trusted, header=right), "ok")
        self.assertEqual(self.identity(*trusted, header="By=spiffe://x/proxy;Hash=0a;URI=;DNS=p.x"), "ok")
        self.assertEqual(self.identity(header=right), nobody)
        self.assertEqual(self.identity("--trusted-proxies", "10.0.0.0/8,unix,uri:spiffe://x/proxy", header=right), nobody)
        self.assertEqual(self.identity(*trusted), nobody)
        for value in ("URI=spiffe://x/foe", right + "," + right, "URI=", "Email=a", [right, right]):
            self.assertEqual(self.identity(*trusted, header=value), bad, value)

    def test_callers_of_a_proxy_on_this_machine_are_not_of_this_machine(self):
        file = {"principals": []}
        for flags, roles in ((("--trusted-proxies", "127.0.0.1"), False), ((), True)):
            path = self.folder / "principals.json"
            path.write_text(json.dumps(file))
            with Server("--principals", str(path), *flags) as server:
                delete = layers_pb.DeleteLayerRequest(name="a")
                failure = call_failure(server.layers.DeleteLayer, delete)
                self.assertEqual(failure.code, Code.NOT_FOUND if roles else Code.PERMISSION_DENIED)

    def test_what_is_no_proxy_is_refused(self):
        for bad in ("proxy.example", "10.0.0.0/33", "uri:"):
            with self.subTest(bad), self.assertRaisesRegex(RuntimeError, f"--trusted-proxies: '{bad}'"):
                Server("--trusted-proxies", bad)


if __name__ == "__main__":
    unittest.main()
