"""deploy/envoy as it is committed, with the real Envoy and real servers: what it lets through, what it stops, whom it believes.

`make test-envoy` runs it (nightly: Envoy comes from the Python package index).
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import re
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

import golden_cases
from attend_testing import edge
from attend_testing.doors import Door
from attend_testing.errors import failure_of
from attend_testing.good_client import METHOD, GoodClient, answered, small_request
from attend_testing.http2 import RST_STREAM, frame, headers_frame
from attend_testing.layers import header
from attend_testing.load import wait_until
from attend_testing.stubs import health_pb2, layers_grpc, layers_pb, pb, pb_grpc, reflection_pb2
from attend_testing.tensors import OUTPUT, WEIGHTS

Code = grpc.StatusCode
BEARER = (("authorization", f"Bearer {edge.TOKEN}"),)


class EdgeTestCase(unittest.TestCase):
    SERVERS = 1

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="attend-edge-")
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = edge.make_certificates(folder.name)
        cls.servers = [cls.start_server() for _ in range(cls.SERVERS)]
        cls.edge = edge.Edge(cls.certificates, [server.port for server in cls.servers])
        cls.addClassCleanup(cls.edge.stop)
        wait_until(cls.is_served, "Envoy has found a healthy server")

    @classmethod
    def start_server(cls, *flags):
        (server,) = edge.servers(cls.certificates, 1, *flags)
        cls.addClassCleanup(server.stop)
        return server

    @classmethod
    def is_served(cls):
        with cls.edge.door("search").channel() as channel:
            try:
                pb_grpc.AttentionServiceStub(channel).GetServerInfo(pb.GetServerInfoRequest(), timeout=2)
            except grpc.RpcError:
                return False
        return True


class ConfigurationTest(unittest.TestCase):
    def test_envoy_accepts_the_file(self):
        with tempfile.TemporaryDirectory() as folder:
            edge.make_certificates(folder)
            file = edge.configure(pathlib.Path(folder), [1])
            command = [edge.find_envoy(), "--mode", "validate", "-c", str(file)]
            checked = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(checked.returncode, 0, checked.stderr)
            self.assertNotIn("deprecated", checked.stderr.lower())


class CallsTest(EdgeTestCase):
    def test_answers_are_those_of_the_server_bit_for_bit(self):
        direct = Door(self.servers[0].port, self.certificates.path("servers.crt"), self.certificates.path("direct"), edge.SERVER_NAME)
        with direct.channel() as one, self.edge.door("search").channel() as other:
            for case in golden_cases.all_cases():
                with self.subTest(case.name):
                    request = case.request([OUTPUT, WEIGHTS])
                    answers = [pb_grpc.AttentionServiceStub(channel).Attend(request, timeout=60) for channel in (one, other)]
                    self.assertEqual(answers[0].SerializeToString(deterministic=True), answers[1].SerializeToString(deterministic=True))

    def test_streams_pass(self):
        x = {"shape": [1, 1], "values": [1]}
        with self.edge.door("search").channel() as channel:
            requests = iter([pb.StreamAttendRequest(id=i, attend={"embeddings": x}) for i in range(3)])
            answers = list(pb_grpc.AttentionServiceStub(channel).StreamAttend(requests, timeout=60))
            self.assertEqual(sorted(answer.id for answer in answers), [0, 1, 2])

    def test_an_error_keeps_its_details(self):
        with self.edge.door("search").channel() as channel:
            with self.assertRaises(grpc.RpcError) as caught:
                pb_grpc.AttentionServiceStub(channel).Attend(pb.AttendRequest(), timeout=60)
            failure = failure_of(caught.exception)
            self.assertEqual(failure.code, Code.INVALID_ARGUMENT)
            self.assertTrue(failure.violations, failure)

    def test_a_message_beyond_the_bound_is_refused(self):
        with self.edge.door("search").channel() as channel:
            with self.assertRaises(grpc.RpcError) as caught:
                channel.unary_unary(METHOD)(bytes(17 << 20), timeout=60)
            self.assertIn(caught.exception.code(), (Code.UNKNOWN, Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE))

    def test_reflection_and_watches_are_not_routed(self):
        question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        for path in ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.health.v1.Health/Watch"):
            with self.subTest(path), self.edge.door("search").channel() as channel:
                with self.assertRaises(grpc.RpcError) as caught:
                    list(channel.stream_stream(path)(iter([question]), timeout=60))
                self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)

    def test_grpc_web_from_a_page(self):
        """Over HTTP/1.1, in base64 as browsers without streams of bytes send it; and what a page may ask first."""
        request = pb.GetServerInfoRequest().SerializeToString()
        body = base64.b64encode(b"\0" + len(request).to_bytes(4, "big") + request)
        head = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text", "x-grpc-web": "1", "origin": "https://app.example.org"}
        status, headers, answer = self.http("POST", "/attend.v1.AttentionService/GetServerInfo", head, body)
        self.assertEqual((status, headers["access-control-allow-origin"]), (200, "https://app.example.org"))
        frames = b"".join(base64.b64decode(piece) for piece in re.findall(rb"[^=]+=*", answer))  # Each frame has its own padding.
        size = int.from_bytes(frames[1:5], "big")
        self.assertRegex(pb.GetServerInfoResponse.FromString(frames[5 : 5 + size]).version, r"^\d+\.\d+\.\d+$")
        self.assertEqual(frames[5 + size], 0x80, "trailers")
        self.assertIn(b"grpc-status:0", frames[10 + size :])

        asked = {"origin": "https://app.example.org", "access-control-request-method": "POST"}
        status, headers, _ = self.http("OPTIONS", "/attend.v1.AttentionService/GetServerInfo", asked)
        self.assertEqual((status, headers["access-control-allow-methods"]), (200, "POST"))
        status, headers, _ = self.http("OPTIONS", "/attend.v1.AttentionService/GetServerInfo", {**asked, "origin": "https://foe.example"})
        self.assertNotIn("access-control-allow-origin", headers)

    def http(self, method, path, headers, body=b""):
        with self.edge.door("search").connect(protocol="http/1.1") as connection:
            lines = [f"{method} {path} HTTP/1.1", "host: x", "connection: close", f"content-length: {len(body)}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if fields.get("transfer-encoding") == "chunked":
            rest = b"".join(rest.split(b"\r\n")[1::2])
        return int(first.split()[1]), fields, rest


class IdentityTest(EdgeTestCase):
    def outcome(self, caller, method, *messages, metadata=()):
        with self.edge.door(caller).channel() as channel:
            try:
                getattr(layers_grpc.LayerServiceStub(channel), method)(*messages, timeout=60, metadata=metadata)
            except grpc.RpcError as error:
                return error.code()
        return Code.OK

    def create(self, caller, **more):
        seed = layers_pb.SeededWeights(embed_dim=8)
        return self.outcome(caller, "CreateLayer", iter([header("edge", init=seed, replace=True)]), **more)

    def test_layers_are_written_by_those_alone_whose_certificate_says_so(self):
        """At the server they all have the role `layers`."""
        for caller, expected in (("trainer", Code.OK), ("search", Code.PERMISSION_DENIED)):
            with self.subTest(caller):
                self.assertEqual(self.create(caller), expected)
                self.assertEqual(self.outcome(caller, "ListLayers", layers_pb.ListLayersRequest()), Code.OK)
        self.assertEqual(self.create("", metadata=BEARER), Code.PERMISSION_DENIED)
        for caller, expected in (("search", Code.PERMISSION_DENIED), ("", Code.PERMISSION_DENIED), ("trainer", Code.OK)):
            with self.subTest(caller or "no certificate"):
                self.assertEqual(self.outcome(caller, "DeleteLayer", layers_pb.DeleteLayerRequest(name="edge")), expected)

    def test_who_has_neither_certificate_nor_token_may_nothing(self):
        """Such a call is Envoy's own principal's, which has no role; health needs none."""
        self.assertEqual(self.outcome("", "ListLayers", layers_pb.ListLayersRequest()), Code.PERMISSION_DENIED)
        with self.edge.door().channel() as channel:
            for method, request in (("GetServerInfo", pb.GetServerInfoRequest()), ("ScaledDotProductAttention", small_request())):
                with self.subTest(method), self.assertRaises(grpc.RpcError) as caught:
                    getattr(pb_grpc.AttentionServiceStub(channel), method)(request, timeout=60)
                failure = failure_of(caught.exception)
                self.assertEqual((failure.code, failure.reason), (Code.PERMISSION_DENIED, "MISSING_ROLE"))
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = check(health_pb2.HealthCheckRequest().SerializeToString(), timeout=60)
            self.assertEqual(health_pb2.HealthCheckResponse.FromString(answer).status, health_pb2.HealthCheckResponse.SERVING)

    def test_a_certificate_that_the_server_does_not_know_is_refused(self):
        self.assertEqual(self.outcome("guest", "ListLayers", layers_pb.ListLayersRequest()), Code.UNAUTHENTICATED)

    def test_a_stranger_s_certificate_ends_at_the_handshake(self):
        self.assertEqual(self.create("foe"), Code.UNAVAILABLE)

    def test_a_path_in_disguise_is_not_let_through(self):
        for path in ("/attend.v1.LayerService%2FDeleteLayer", "/attend.v1.LayerService//DeleteLayer",
                     "/attend.v1.AttentionService/../attend.v1.LayerService/DeleteLayer", "/attend.v1.LayerService/./DeleteLayer",
                     "/attend.v1.layerservice/DeleteLayer", "/attend.v1.LayerService/DeleteLayer?x=1"):  # fmt: skip
            with self.subTest(path), self.edge.door("search").channel() as channel:
                with self.assertRaises(grpc.RpcError) as caught:
                    channel.unary_unary(path)(layers_pb.DeleteLayerRequest(name="none").SerializeToString(), timeout=60)
                # Whatever it is called, nobody without the certificate hears the layer service say NOT_FOUND.
                self.assertIn(caught.exception.code(), (Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNKNOWN))

    def test_the_client_s_word_about_its_certificate_is_dropped_and_envoy_s_is_said(self):
        """An upstream of ours takes the place of the server and shows the header that it got."""
        lie = f"URI={edge.CALLERS['trainer']}"
        for caller, expected in (("", ""), ("search", edge.CALLERS["search"])):
            with self.subTest(caller or "no certificate"):
                got = forwarded(self.certificates, caller, (("x-forwarded-client-cert", lie), ("x-forwarded-for", "10.9.8.7")))
                self.assertNotIn(edge.CALLERS["trainer"], got.get("x-forwarded-client-cert", ""))
                if expected:
                    self.assertIn(f"URI={expected}", got["x-forwarded-client-cert"].split(";"))
                else:
                    self.assertNotIn("x-forwarded-client-cert", got)
                self.assertEqual(got["x-envoy-external-address"], "127.0.0.1")
                self.assertNotIn("10.9.8.7", got["x-forwarded-for"])

    def test_a_token_passes_to_the_server(self):
        """It is the server's to judge, with or without a certificate."""
        self.assertEqual(self.outcome("", "ListLayers", layers_pb.ListLayersRequest(), metadata=BEARER), Code.OK)
        with self.edge.door("search").channel() as channel:
            with self.assertRaises(grpc.RpcError) as caught:
                channel.unary_unary(METHOD)(small_request().SerializeToString(), timeout=60, metadata=(("authorization", "Bearer x"),))
            self.assertEqual(caught.exception.code(), Code.UNAUTHENTICATED)


def forwarded(certificates, caller, metadata):
    """The metadata that reaches a server behind Envoy."""
    seen = []

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method == METHOD:
                seen.append(dict(details.invocation_metadata))
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: health_pb2.HealthCheckResponse(status=1).SerializeToString()
            )

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([Handler()])
    pair = (certificates.text("server.key"), certificates.text("server.crt"))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], certificates.text("servers.crt"), True))
    server.start()
    try:
        with edge.Edge(certificates, [port]) as proxy, proxy.door(caller).channel() as channel:
            method = channel.unary_unary(METHOD)

            def is_answered():
                try:
                    method(b"", timeout=5, metadata=metadata)
                except grpc.RpcError:
                    return False
                return True

            wait_until(is_answered, "the upstream is found")
    finally:
        server.stop(None)
    return seen[-1]


class HealthTest(EdgeTestCase):
    SERVERS = 2

    def test_a_server_that_drains_is_left_and_no_call_fails(self):
        leaving = self.start_server("--drain-wait", "5s")
        with edge.Edge(self.certificates, [leaving.port, self.servers[0].port]) as proxy:
            good = GoodClient(proxy.door("search"), seconds=8)
            time.sleep(2)
            leaving.terminate()
            calls = good.result()
            self.assertEqual([when for when, ok in calls if not ok], [])
            self.assertGreater(len(calls), 1000)
            self.assertEqual(leaving.wait(), 0)

    def test_a_server_that_dies_is_ejected_and_found_again(self):
        flags = edge.server_flags(self.certificates)
        victim = edge.Server(*flags)
        address = f"127.0.0.1:{victim.port}"
        with edge.Edge(self.certificates, [victim.port]) as proxy:
            def healthy():
                return int(f"::{address}::health_flags::healthy" in proxy.ask("/clusters"))
            wait_until(healthy, "the server is seen healthy")
            victim.kill()
            wait_until(lambda: not healthy(), "it is ejected")
            with edge.Server(*flags, "--listen", address):
                wait_until(healthy, "its successor is found")


class FloodTest(EdgeTestCase):
    """What others get while one client does its worst: at least 0.95 of their calls, and the server is never in danger."""

    SECONDS = 6

    def beside(self, flood, clients=4):
        before = self.servers[0].rss_bytes()
        self.servers[0].reset_peak_rss()
        good = GoodClient(self.edge.door("search"), seconds=self.SECONDS + 2)
        time.sleep(1)
        begin = time.monotonic()
        stop = threading.Event()
        threads = [threading.Thread(target=self.until, args=(flood, stop)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(self.SECONDS)
        stop.set()
        for thread in threads:
            thread.join()
        calls = good.result()
        ratio = answered(calls, begin, begin + self.SECONDS)
        growth = self.servers[0].peak_rss_bytes() - before
        print(f"{self.id().rsplit('.', 1)[1]}: {ratio:.3f} of the calls, server {growth / 2**20:+.0f} MiB")
        self.assertGreaterEqual(ratio, 0.95)
        self.assertLess(growth, 64 << 20)
        self.assertTrue(self.edge.alive() and self.servers[0].alive())
        wait_until(self.is_served, "new connections are served")

    @staticmethod
    def until(flood, stop):
        while not stop.is_set():
            with contextlib.suppress(OSError, ssl.SSLError):
                flood(stop)

    def test_rapid_reset(self):
        before = self.edge.counter("http2.rx_reset")

        def flood(stop):
            with self.foe().greet() as connection:
                stream = 1
                while not stop.is_set():
                    streams = range(stream, stream + 200, 2)
                    sent = (headers_frame(i, METHOD, end_stream=True) + frame(RST_STREAM, i, bytes(4)) for i in streams)
                    connection.sendall(b"".join(sent))
                    stream += 200

        self.beside(flood)
        self.assertGreater(self.edge.counter("http2.rx_reset"), before)
        self.assertGreater(self.edge.counter("downstream_rq_too_many_premature_resets"), 0, "connections ended for it")

    def test_more_connections_than_one_client_may_have(self):
        """They come from another address, as a client's of its own would, and a connection of the good one's is let in meanwhile."""
        admitted = []

        def flood(stop):
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(self.foe().connect_tcp(10))
                if not stop.wait(1):
                    admitted.append(self.is_served())
                stop.wait()

        self.beside(flood, clients=2)
        self.assertTrue(admitted and all(admitted), "new connections of others are let in during the flood")
        closed = self.edge.counter("limited_connections") + self.edge.counter("rate_limited")
        self.assertGreater(closed, 200, "for their number, or for coming too fast")

    def foe(self):
        """The flood's door: from an address of this machine whose connections are not counted with those of 127.0.0.1."""
        return dataclasses.replace(self.edge.door(), source="127.0.0.2")

    def test_streams_of_headers_alone(self):
        def flood(stop):
            with self.foe().greet() as connection:
                connection.sendall(b"".join(headers_frame(2 * i + 1, METHOD) for i in range(64)))
                stop.wait(3)

        self.beside(flood, clients=20)


class RenewalTest(EdgeTestCase):
    def test_a_certificate_renewed_in_place_is_used(self):
        door = self.edge.door()
        def serial():
            with door.connect() as connection:
                return connection.getpeercert()["serialNumber"]
        first = serial()
        folder = pathlib.Path(self.certificates.path("."))
        self.certificates.leaf("next", "servers", names=f"DNS:localhost,URI:{edge.PROXY_NAME}")
        for end in ("key", "crt"):  # Moved, as Kubernetes renews the files of a Secret.
            (folder / f"next.{end}").rename(folder / f"tls.{end}")
        wait_until(lambda: serial() != first, "the new certificate is shown")
        wait_until(self.is_served, "calls are served")


if __name__ == "__main__":
    unittest.main()
