"""The HTTP door beside gRPC's: the same bits, the same errors, the same rights; and what only HTTP has to refuse."""

import dataclasses
import http.client
import json
import pathlib
import re
import select
import socket
import tempfile
import threading
import time
import unittest

import grpc
import numpy as np

import errors_test
import field_errors_test
import golden_cases
from attend_testing.admin import Scrape
from attend_testing.errors import call_failure
from attend_testing.http_door import ATTENTION, FLAGS, FORMS, JSON, PROTO, Answer, Door, HttpError
from attend_testing.layers import Weights
from attend_testing.load import endless_request, heavy_request, wait_until, wait_until_computing
from attend_testing.refusals import attend, sdpa
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, TIMING, Server, ServerTestCase
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, WEIGHTS

RESPONSES = {"Attend": pb.AttendResponse, "ScaledDotProductAttention": pb.ScaledDotProductAttentionResponse,
             "EstimateCost": pb.EstimateCostResponse, "GetServerInfo": pb.GetServerInfoResponse}  # fmt: skip
SMALL = json.dumps({"embeddings": {"shape": [2, 2], "values": [1, 0, 0, 1]}}).encode()
NAN, INFINITY = float("nan"), float("inf")


def bits(message):
    return message.SerializeToString(deterministic=True)


def documented_headers():
    """Those that docs/http.md lets a call have."""
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs/http.md").read_text()
    table = text.split("| header | |")[1].split("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if "`" in row]
    return {name.lower() for row in rows for name in re.findall("`([^`]+)`", row)}


class DoorTestCase(ServerTestCase):
    FLAGS = FLAGS

    def setUp(self):
        self.door = Door(self.server.http_port)
        self.addCleanup(self.door.close)

    def both(self, method, request, timeout=60):
        """What gRPC answers: a message or a Failure without trailers."""
        try:
            return getattr(self.stub, method)(request, timeout=timeout)
        except grpc.RpcError:
            return without_trailers(call_failure(getattr(self.stub, method), request))

    def check_same(self, method, request, forms=FORMS):
        expected = self.both(method, request)
        for form in forms:
            with self.subTest(method=method, form=form):
                try:
                    answer = self.door.call(method, request, RESPONSES[method], form)
                except HttpError as error:
                    self.assertEqual(without_trailers(error.failure), expected)
                    self.assertRegex(error.failure.trailers["server-timing"], TIMING)
                else:
                    self.assertEqual(bits(answer), bits(expected))


def without_trailers(failure):
    return dataclasses.replace(failure, trailers={})


class SameBitsTest(DoorTestCase):
    def test_every_golden_case(self):
        """Requests and answers in JSON and in protobuf, tensors as bytes and as values."""
        for case in golden_cases.all_cases():
            for form in ("data", "values"):
                with self.subTest(case.name, tensors=form):
                    outputs = [OUTPUT, WEIGHTS, LOG_SUM_EXP]
                    self.check_same("Attend", case.request(outputs, form, case.batched, per_head=True))

    def test_numbers_that_are_hard_to_write(self):
        """The least, the greatest, denormal, signed zero, NaN and infinities; a hundred thousand random bit patterns."""
        rng = np.random.default_rng(5)
        patterns = rng.integers(0, 2**32, 100_000, np.uint32).view(np.float32)
        odd = np.float32([0.0, -0.0, 1e-45, -1e-45, 3.4028235e38, 1.1754944e-38, NAN, INFINITY, -INFINITY, 0.1, 1 / 3])
        for values in (np.concatenate([odd, np.nan_to_num(patterns, nan=1)]),):
            # One query whose only key has everything: the output is the value, whatever it is.
            request = sdpa_request(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), values[None], form="values")
            self.check_same("ScaledDotProductAttention", request)
            answer = self.door.call("ScaledDotProductAttention", request, RESPONSES["ScaledDotProductAttention"], JSON)
            np.testing.assert_array_equal(np.float32(answer.output.values).view(np.uint32) << 1, values.view(np.uint32) << 1)

    def test_json_has_the_shortest_decimals(self):
        values = [0.1, 1 / 3, 0.1234567, 16777216.0, 1e-45, 3.4028235e38]
        request = {"query": {"shape": [1, 1], "values": [0]}, "key": {"shape": [1, 1], "values": [0]},
                   "value": {"shape": [1, len(values)], "values": values}}  # fmt: skip
        answer = self.door.post("ScaledDotProductAttention", json.dumps(request).encode())
        self.assertEqual(answer.status, 200, answer.body)
        text = answer.body.decode()
        self.assertIn('"values":[0.1,0.33333334,0.1234567,16777216,1e-45,3.4028234e+38]', text)
        self.assertIn('"shape":["1","6"]', text)

    def test_information_and_estimates(self):
        self.check_same("GetServerInfo", pb.GetServerInfoRequest())
        for form in FORMS:
            request = pb.EstimateCostRequest(scaled_dot_product_attention=sdpa())
            answer = self.door.call("EstimateCost", request, pb.EstimateCostResponse, form)
            self.assertEqual(answer.flops, self.stub.EstimateCost(request, timeout=60).flops)

    def test_large_requests_and_answers(self):
        """Beyond what is decoded on the door's own thread, in pieces of every kind of body."""
        x = np.random.default_rng(0).standard_normal((1, 2, 300, 64)).astype(np.float32)
        for form in ("data", "values"):
            self.check_same("ScaledDotProductAttention", sdpa_request(x, x, x, outputs=[OUTPUT, WEIGHTS], form=form))


class SameErrorsTest(DoorTestCase):
    def test_every_wrong_request(self):
        tables = {
            "ScaledDotProductAttention": {
                **errors_test.TENSORS, **errors_test.SDPA, **field_errors_test.TOP_K, **field_errors_test.TYPES,
                **{what: case for what, case in field_errors_test.RAGGED.items() if "million" not in what},
            },
            "Attend": {**errors_test.ATTEND, **field_errors_test.ATTEND},
        }  # fmt: skip
        for method, table in tables.items():
            for what, (request, field) in table.items():
                with self.subTest(what):
                    expected = self.both(method, request)
                    self.assertEqual(expected.fields, [field])
                    self.check_same(method, request)

    def test_malformed_messages(self):
        for what, data in errors_test.MALFORMED.items():
            with self.subTest(what):
                expected = without_trailers(call_failure(self.server.channel.unary_unary(ATTENTION + "Attend"), data))
                answer = self.door.post("Attend", data, PROTO)
                self.assertEqual(without_trailers(HttpError(answer).failure), expected)

    def test_json_that_is_none_of_the_message(self):
        fields = {"half": ["embeddings"], "a word for a number": ["embeddings.values[0]"], "a float for an int": ["embeddings.shape[0]"],
                  "beyond float": ["embeddings.values[0]"], "an unknown enum": ["outputs[0]"], "deep": ["embeddings"],
                  "no UTF-8": ["layer_name"]}  # fmt: skip
        for what, text in {
            "nothing": "", "half": '{"embeddings": ', "a list": "[]", "more": "{} {}", "an unknown field": '{"embedding": {}}',
            "a word for a number": '{"embeddings": {"shape": [2], "values": ["one", 2]}}',
            "a float for an int": '{"embeddings": {"shape": [1.5]}}',
            "beyond float": '{"embeddings": {"shape": [1], "values": [1e39]}}', "an unknown enum": '{"outputs": ["OUTPUT_KIND_NOTHING"]}',
            "deep": '{"embeddings":' * 500, "no UTF-8": b'{"layerName": "\xff"}',
        }.items():  # fmt: skip
            with self.subTest(what):
                answer = self.door.post("Attend", text if isinstance(text, bytes) else text.encode())
                failure = HttpError(answer).failure
                self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"))
                self.assertEqual(failure.fields, fields.get(what, [""]))
        self.check_same("Attend", attend())

    def test_unknown_methods_and_those_that_are_no_unary_calls(self):
        for path in (ATTENTION + "Nothing", "/attend.v1.Nothing/Attend", ATTENTION + "StreamAttend",
                     "/attend.v1.LayerService/ListLayers", "/attend.v1.LayerService/DeleteLayer",
                     "/grpc.health.v1.Health/Check"):  # fmt: skip
            with self.subTest(path):
                answer = self.door.post(path, b"{}")
                failure = HttpError(answer).failure
                self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD"))
                self.assertEqual(answer.status, 404)


class HttpRulesTest(DoorTestCase):
    def test_readmes_request(self):
        answer = self.door.post("Attend", SMALL)
        self.assertEqual(answer.status, 200, answer.body)
        output = json.loads(answer.body)["output"]
        self.assertEqual(output["shape"], ["2", "2"])
        self.assertRegex(answer.headers["server-timing"], TIMING)
        self.assertEqual(answer.headers["content-type"], JSON)
        self.assertIn("receipt", json.loads(answer.body))

    def test_only_the_two_content_types(self):
        for kind in ("text/plain", "application/json; charset=utf-8", "application/grpc", "application/connect+json",
                     "application/grpc-web+proto", "", None, [JSON, JSON]):  # fmt: skip
            with self.subTest(kind):
                answer = self.door.post("Attend", SMALL, headers={"Content-Type": kind})
                self.assertEqual(answer.status, 415)
                self.assertEqual(answer.headers["accept-post"], "application/json, application/proto")

    def test_no_call_by_another_method_than_post(self):
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            with self.subTest(method), Door(self.server.http_port) as door:
                answer = door.request(method, ATTENTION + "Attend?connect=v1&encoding=json&message=%7B%7D")
                self.assertEqual((answer.status, answer.headers["allow"]), (405, "POST"))

    def test_hosts(self):
        port = self.server.http_port
        for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", "127.8.9.10:1", "[::1]", "[::1]:80"):
            with self.subTest(host):
                self.assertEqual(self.door.post("Attend", SMALL, headers={"Host": host}).status, 200)
        for host in ("example.org", f"example.org:{port}", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1", "",
                     "127.1", "2130706433", "[::2]", "localhost:80:80.org", "[::1].org"):  # fmt: skip
            for method, path in (("POST", ATTENTION + "Attend"), ("GET", "/")):
                with self.subTest(host, path=path):
                    answer = self.door.request(method, path, headers={"Host": host, "Content-Type": JSON})
                    self.assertEqual(answer.status, 403)

    def test_origins(self):
        port = self.server.http_port
        ours = f"http://127.0.0.1:{port}"
        self.assertEqual(self.door.post("Attend", SMALL, headers={"Origin": ours}).status, 200)
        for origin in ("http://example.org", "null", "", f"https://127.0.0.1:{port}", "http://127.0.0.1", ours + "0",
                       f"http://localhost:{port}", [ours, "http://example.org"], [ours, ours]):  # fmt: skip
            with self.subTest(origin):
                answer = self.door.post("Attend", SMALL, headers={"Origin": origin})
                self.assertEqual(answer.status, 403)
                self.assertNotIn("access-control-allow-origin", answer.headers)

    def test_content_encodings_versions_and_timeouts(self):
        for headers, code in (
            ({"Content-Encoding": "gzip"}, "UNIMPLEMENTED"), ({"Content-Encoding": "br"}, "UNIMPLEMENTED"),
            ({"Connect-Protocol-Version": "2"}, "INVALID_ARGUMENT"), ({"Connect-Timeout-Ms": "0"}, "INVALID_ARGUMENT"),
            ({"Connect-Timeout-Ms": "-1"}, "INVALID_ARGUMENT"), ({"Connect-Timeout-Ms": "1s"}, "INVALID_ARGUMENT"),
            ({"Content-Encoding": ["identity", "gzip"]}, "INVALID_ARGUMENT"), ({"Content-Encoding": ["", "gzip"]}, "INVALID_ARGUMENT"),
            ({"Connect-Protocol-Version": ["1", "2"]}, "INVALID_ARGUMENT"), ({"Connect-Timeout-Ms": "12345678901"}, "INVALID_ARGUMENT"),
            ({"Connect-Timeout-Ms": ["5", "6"]}, "INVALID_ARGUMENT"),
        ):  # fmt: skip
            with self.subTest(headers):
                self.assertEqual(HttpError(self.door.post("Attend", SMALL, headers=headers)).failure.code.name, code)
        good = {"Content-Encoding": "identity", "Connect-Protocol-Version": "1", "Connect-Timeout-Ms": "9999999999"}
        self.assertEqual(self.door.post("Attend", SMALL, headers=good).status, 200)

    def test_bodies_in_chunks_of_every_size(self):
        for size in (1, 2, 3, 7, len(SMALL)):
            with self.subTest(size), socket.create_connection(("127.0.0.1", self.server.http_port), PATIENCE) as raw:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.sendall(f"POST {ATTENTION}Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n".encode())  # fmt: skip
                for at in range(0, len(SMALL), size):
                    piece = SMALL[at : at + size]
                    raw.sendall(b"%X;name=value\r\n%s\r\n" % (len(piece), piece))
                raw.sendall(b"0\r\nTrailer: x\r\n\r\n")
                answer = http.client.HTTPResponse(raw)
                answer.begin()
                self.assertEqual(answer.status, 200, answer.read())

    def test_a_caller_that_waits_to_be_told_to_send(self):
        with socket.create_connection(("127.0.0.1", self.server.http_port), PATIENCE) as raw:
            raw.sendall(f"POST {ATTENTION}Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
                        f"Expect: 100-continue\r\nContent-Length: {len(SMALL)}\r\n\r\n".encode())  # fmt: skip
            self.assertEqual(raw.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
            raw.sendall(SMALL)
            self.assertTrue(raw.recv(100).startswith(b"HTTP/1.1 200 OK"))

    def test_requests_that_come_together_are_answered_in_their_order(self):
        with socket.create_connection(("127.0.0.1", self.server.http_port), PATIENCE) as raw:
            bodies = [json.dumps({"embeddings": {"shape": [1, 1], "values": [i]}}).encode() for i in range(1, 9)]
            raw.sendall(b"".join(
                f"POST {ATTENTION}Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies))  # fmt: skip
            raw.sendall(b"GET /end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answers = b"".join(iter(lambda: raw.recv(4096), b""))
            outputs = re.findall(rb'"output":{[^}]*"values":\[(\d+)\]', answers)
            self.assertEqual(list(map(int, outputs)), list(range(1, 9)), answers)

    def test_the_page(self):
        page = self.door.request("GET", "/")
        self.assertEqual((page.status, page.headers["content-type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"<html", page.body)
        self.assertTrue(page.headers["content-security-policy"].startswith("default-src 'self'"))
        self.assertEqual(page.headers["x-content-type-options"], "nosniff")
        again = self.door.request("GET", "/", headers={"If-None-Match": page.headers["etag"]})
        self.assertEqual((again.status, again.body), (304, b""))
        self.assertEqual(self.door.request("GET", "/index.html").body, page.body)
        self.assertEqual(self.door.request("HEAD", "/").headers["content-length"], str(len(page.body)))
        self.assertEqual(self.door.request("GET", "/../etc/passwd").status, 404)
        self.assertEqual(self.door.request("POST", "/", b"").status, 405)


class FlagsTest(unittest.TestCase):
    def test_configured_names_and_origins(self):
        flags = ("--http-host", "Attend.example", "--http-allow-origin", "https://lessons.example")
        with Server(*FLAGS, *flags) as server, Door(server.http_port) as door:
            self.assertEqual(door.post("Attend", SMALL, headers={"Host": "attend.EXAMPLE:443"}).status, 200)
            answer = door.post("Attend", SMALL, headers={"Origin": "https://lessons.example"})
            self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (200, "https://lessons.example"))
            self.assertEqual((answer.headers["vary"], answer.headers["access-control-expose-headers"]), ("origin", "server-timing"))
            asked = {"Origin": "https://lessons.example", "Access-Control-Request-Method": "POST"}
            answer = door.request("OPTIONS", ATTENTION + "Attend", headers=asked)
            self.assertEqual((answer.status, answer.body, answer.headers["access-control-allow-methods"]), (204, b"", "POST"))
            self.assertEqual(set(answer.headers["access-control-allow-headers"].split(", ")), documented_headers())
            asked["Origin"] = "https://lessons.example.org"
            self.assertEqual(door.request("OPTIONS", ATTENTION + "Attend", headers=asked).status, 403)

    def test_a_foreign_origin_computes_nothing(self):
        with Server(*FLAGS, "--admin-listen", "127.0.0.1:0") as server, Door(server.http_port) as door:
            for headers in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
                self.assertEqual(door.post("Attend", SMALL, headers=headers).status, 403)
            metrics = Scrape(server.admin_port)
            self.assertEqual(metrics.sum("grpc_server_started_total"), 0)

    def test_layers_are_read_where_they_are_served(self):
        flags = ("--http-services", "attention,layers", "--layer", "one=init:1:8")
        with Server(*FLAGS, *flags) as server, Door(server.http_port) as door:
            path = "/attend.v1.LayerService/"
            for form in FORMS:
                answer = door.call(path + "ListLayers", layers_pb.ListLayersRequest(), layers_pb.ListLayersResponse, form)
                self.assertEqual(bits(answer), bits(server.layers.ListLayers(layers_pb.ListLayersRequest())))
                answer = door.call(path + "GetLayer", layers_pb.GetLayerRequest(name="one"), layers_pb.GetLayerResponse, form)
                self.assertEqual(answer.layer.name, "one")
                with self.assertRaises(HttpError) as missing:
                    door.call(path + "GetLayer", layers_pb.GetLayerRequest(name="two"), layers_pb.GetLayerResponse, form)
                self.assertEqual(missing.exception.failure.reason, "LAYER_NOT_FOUND")
            for method in ("DeleteLayer", "CreateLayer"):
                self.assertEqual(door.post(path + method, b"{}").status, 404)

    def test_max_json_bytes_bounds_requests_and_answers(self):
        with Server(*FLAGS, "--max-json-bytes", "1000", "--max-request-bytes", "2000") as server, Door(server.http_port) as door:
            for body, headers in ((b" " * 1001, {}), (b"3e9\r\n" + b" " * 1001 + b"\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"})):
                failure = HttpError(door.post("Attend", body, headers=headers)).failure
                self.assertEqual((failure.code, failure.metadata["flag"]), (grpc.StatusCode.RESOURCE_EXHAUSTED, "--max-json-bytes"))
            failure = HttpError(door.post("Attend", b" " * 2001, PROTO)).failure
            self.assertEqual(failure.metadata["flag"], "--max-request-bytes")
            failure = HttpError(door.post("Attend", b"", PROTO, {"Content-Length": str(4 << 30)})).failure
            self.assertEqual(failure.metadata["flag"], "--max-request-bytes")
            request = sdpa_request(*(np.ones((16, 1), np.float32),) * 2, np.ones((16, 8), np.float32), outputs=[WEIGHTS], form="data")
            with self.assertRaises(HttpError) as long:
                door.call("ScaledDotProductAttention", request, pb.ScaledDotProductAttentionResponse, JSON)
            self.assertEqual(long.exception.failure.metadata["flag"], "--max-json-bytes")

    def test_an_answer_in_json_has_memory_for_two_of_it(self):
        """The message is read again to be written as JSON."""
        x = np.ones((1024, 1), np.float32)  # The attention weights are 4 MiB.
        call = ("ScaledDotProductAttention", sdpa_request(x, x, x, outputs=[WEIGHTS]), pb.ScaledDotProductAttentionResponse)
        with Server(*FLAGS, "--threads", "1", "--max-memory-in-flight-bytes", "7MiB") as server, Door(server.http_port) as door:
            door.call(*call, PROTO)
            with self.assertRaises(HttpError) as refused:
                door.call(*call, JSON)
            self.assertEqual(refused.exception.failure.metadata["flag"], "--max-memory-in-flight-bytes")
        with Server(*FLAGS, "--threads", "1", "--max-memory-in-flight-bytes", "9MiB") as server, Door(server.http_port) as door:
            door.call(*call, JSON)

    def test_a_request_in_json_has_one_limit_as_text_and_one_as_a_message(self):
        with Server(*FLAGS, "--max-json-bytes", "4000", "--max-request-bytes", "1000") as server, Door(server.http_port) as door:
            self.assertEqual(door.post("Attend", SMALL + b" " * 3000).status, 200)
            values = {"embeddings": {"shape": [300, 1], "values": [1] * 300}}
            failure = HttpError(door.post("Attend", json.dumps(values, separators=(",", ":")).encode())).failure
            self.assertEqual((failure.code, failure.metadata["flag"]), (grpc.StatusCode.RESOURCE_EXHAUSTED, "--max-request-bytes"))

    def test_bad_flags(self):
        for flags, text in (
            (("--http-listen", "0.0.0.0:0"), "--insecure"), (("--http-listen", "unix:/tmp/x"), "--http-listen"),
            (("--http-host", "a.example"), "need --http-listen"), ((*FLAGS, "--http-host", "http://a"), "no name of a host"),
            ((*FLAGS, "--http-allow-origin", "*"), "no origin"), ((*FLAGS, "--http-allow-origin", "null"), "no origin"),
            ((*FLAGS, "--http-services", "sessions"), "--http-services"),
            (("--playground", "--http-listen", "0.0.0.0:0", "--insecure"), "--playground"),
        ):  # fmt: skip
            with self.subTest(flags):
                with self.assertRaises(RuntimeError) as error:
                    Server(*flags).stop()
                self.assertIn(text, str(error.exception))


class LifeTest(unittest.TestCase):
    """Deadlines, callers who go, a server that stops."""

    def test_a_deadline_refuses_the_call_or_stops_it(self):
        with Server(*FLAGS, "--admin-listen", "127.0.0.1:0", "--threads", "1") as server, Door(server.http_port) as door:
            def failure(request, seconds):
                body, headers = request.SerializeToString(), {"Connect-Timeout-Ms": str(int(1000 * seconds))}
                answer = door.post("ScaledDotProductAttention", body, PROTO, headers)
                return None if answer.status == 200 else HttpError(answer).failure

            def is_stopped(seconds, length):
                # Its softmax takes longer than is predicted by its few multiplications, so that it begins and is not done in time.
                late = failure(heavy_request(length, dim=1), seconds)
                stopped = Scrape(server.admin_port).sum("attend_stopped_requests_total") == 1
                if stopped:
                    self.assertEqual((late.code.name, late.message), ("DEADLINE_EXCEEDED", "the call's deadline passed before it was done"))
                return stopped

            self.assertEqual(failure(endless_request(), 0.3).code, grpc.StatusCode.DEADLINE_EXCEEDED)  # It never begins.
            tried = [(seconds, 1 << power) for seconds in (0.5, 2, 8) for power in (16, 15, 14, 13)]
            self.assertTrue(any(is_stopped(*each) for each in tried), "nothing was computed until its deadline")
            self.assertEqual(door.post("Attend", SMALL).status, 200)  # The connection goes on.

    def test_a_body_that_comes_after_the_deadline_is_not_computed(self):
        with Server(*FLAGS) as server:
            body = sdpa_request(*(np.ones((1, 1), np.float32),) * 3).SerializeToString()
            for kind in (PROTO, JSON):
                sent = body if kind == PROTO else b"{}"
                with self.subTest(kind), socket.create_connection(("127.0.0.1", server.http_port), PATIENCE) as raw:
                    raw.sendall(f"POST {ATTENTION}ScaledDotProductAttention HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
                                f"Connect-Timeout-Ms: 10\r\nContent-Length: {len(sent)}\r\n\r\n".encode())  # fmt: skip
                    time.sleep(0.2)
                    raw.sendall(sent)
                    answer = http.client.HTTPResponse(raw)
                    answer.begin()
                    self.assertEqual((answer.status, json.loads(answer.read())["code"]), (504, "deadline_exceeded"))

    def test_a_body_that_is_too_slow_is_answered(self):
        """A byte now and then does not prolong its time; nor does a body before it, or waiting to be told to send."""
        def head(length, expect=""):
            return (f"POST {ATTENTION}Attend HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
                    f"{expect}Content-Length: {length}\r\n\r\n".encode())  # fmt: skip

        def answer(raw):
            response = http.client.HTTPResponse(raw)
            response.begin()
            return Answer(response)

        with Server(*FLAGS, "--admin-listen", "127.0.0.1:0", "--first-message-timeout", "2s") as server:
            for expect in ("", "Expect: 100-continue\r\n"):
                with self.subTest(expect), socket.create_connection(("127.0.0.1", server.http_port), PATIENCE) as raw:
                    raw.sendall(head(len(SMALL)) + SMALL[:9])
                    time.sleep(0.05)
                    raw.sendall(SMALL[9:])
                    self.assertEqual(answer(raw).status, 200)
                    raw.sendall(head(1000, expect))
                    if expect:
                        self.assertEqual(raw.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
                    while not select.select([raw], [], [], 0.1)[0]:
                        raw.sendall(b" ")
                    failure = HttpError(answer(raw)).failure
                    self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_MESSAGE"))
                    self.assertIn("within 2s (--first-message-timeout)", failure.message)
            page = Scrape(server.admin_port)
        self.assertEqual(page.value("attend_refusals_total", reason="NO_MESSAGE"), 2)
        self.assertEqual(page.sum("grpc_server_handled_total", grpc_code="Canceled"), 0)

    def test_a_caller_who_goes_cancels_the_work(self):
        with Server(*FLAGS, "--admin-listen", "127.0.0.1:0", "--threads", "1") as server:
            body = endless_request().SerializeToString()
            for i in range(1, 4):
                with socket.create_connection(("127.0.0.1", server.http_port), PATIENCE) as raw:
                    raw.sendall(f"POST {ATTENTION}ScaledDotProductAttention HTTP/1.1\r\nHost: localhost\r\n"
                                f"Content-Type: {PROTO}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)  # fmt: skip
                    wait_until(lambda: Scrape(server.admin_port).sum("attend_computing_requests") == 1, "it computes")
                wait_until(lambda n=i: Scrape(server.admin_port).sum("grpc_server_handled_total", grpc_code="Canceled") == n, "ended")
            wait_until(lambda: Scrape(server.admin_port).sum("attend_memory_bytes", user="requests") == 0, "memory is given back")

    def test_a_drain_waits_for_calls_and_refuses_new_ones(self):
        with (Server(*FLAGS, "--admin-listen", "127.0.0.1:0", "--threads", "1", "--drain-timeout", "10m") as server,
              Door(server.http_port) as busy, Door(server.http_port) as other):  # fmt: skip
            request = sdpa_request(*(np.ones((1, 1, 512, 64), np.float32),) * 3)
            answers = []
            caller = threading.Thread(target=lambda: answers.append(
                busy.call("ScaledDotProductAttention", request, pb.ScaledDotProductAttentionResponse, PROTO)))
            self.assertEqual(other.post("Attend", SMALL).status, 200)
            ahead = server.stub.ScaledDotProductAttention.future(endless_request())  # Until it is cancelled, the other call waits.
            wait_until_computing(server)
            caller.start()
            wait_until(lambda: Scrape(server.admin_port).value("attend_calls_in_flight") == 2, "the call has arrived")
            refusals = []

            def refused_as(reason):  # Whatever else comes has a deadline that the call ahead does not leave time for.
                refusals.append(HttpError(other.post("Attend", SMALL, headers={"Connect-Timeout-Ms": "5000"})).failure)
                return refusals[-1].reason == reason

            self.assertTrue(refused_as("DEADLINE_UNREACHABLE"), refusals)
            server.terminate()
            wait_until(lambda: refused_as("DRAINING"), "new calls are refused")
            self.assertEqual(refusals[-1].code, grpc.StatusCode.UNAVAILABLE)
            self.assertIsNotNone(refusals[-1].retry_seconds)
            self.assertEqual(answers, [])
            ahead.cancel()
            caller.join(PATIENCE)
            self.assertEqual(len(answers), 1)
            self.assertEqual(server.wait(), 0)

    def test_a_playground(self):
        with Server("--playground") as server, Door(server.http_port) as door:
            wait_until(lambda: f"\nhttp://127.0.0.1:{server.http_port}/\n" in "\n" + server.log(), "the address is printed")
            listed = door.post("/attend.v1.LayerService/ListLayers", b"{}")
            self.assertEqual([layer["name"] for layer in json.loads(listed.body)["layers"]], ["demo"])
            request = {"layerName": "demo", "embeddings": {"shape": [1, 64], "values": [0.5] * 64}}
            self.assertEqual(door.post("Attend", json.dumps(request).encode()).status, 200)
            self.assertEqual(door.request("GET", "/").status, 200)

    def test_a_playground_with_a_folder_of_layers_that_has_a_demo(self):
        with tempfile.TemporaryDirectory() as folder:
            demo = pathlib.Path(folder) / "demo"
            demo.mkdir()
            (demo / "layer.safetensors").write_bytes(Weights(1).file())
            with Server("--playground", "--layer-dir", folder) as server, Door(server.http_port) as door:
                listed = json.loads(door.post("/attend.v1.LayerService/ListLayers", b"{}").body)
                self.assertEqual([layer["origin"] for layer in listed["layers"]], ["layer.safetensors"])


if __name__ == "__main__":
    unittest.main()
