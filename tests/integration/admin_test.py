"""The admin door: its three pages and nothing else, counts that match the calls made, probes through a drain."""

import contextlib
import datetime
import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import grpc
import numpy as np

from attend_testing.admin import Scrape, ask
from attend_testing.errors import call_failure
from attend_testing.layers import Weights, upload
from attend_testing.load import endless_request, wait_until
from attend_testing.server import BINARY, PATIENCE, Server, ServerTestCase
from attend_testing.stubs import layers_pb, pb, pb_grpc
from attend_testing.tensors import to_tensor

ADMIN = ("--admin-listen", "127.0.0.1:0")
ATTENTION = "attend.v1.AttentionService"
# What every server says, with the labels that it says it by.
ALWAYS = {
    "grpc_server_started": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_handled": {"grpc_type", "grpc_service", "grpc_method", "grpc_code"},
    "grpc_server_msg_received": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_msg_received_bytes": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_msg_sent": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_msg_sent_bytes": {"grpc_type", "grpc_service", "grpc_method"},
    "grpc_server_handling_seconds": {"grpc_type", "grpc_service", "grpc_method"},
    "attend_refusals": {"reason"},
    "attend_stream_requests": {"grpc_code"},
    "attend_computed_requests": {"kind", "instruction_set"},
    "attend_compute_seconds": {"kind", "instruction_set"},
    "attend_compute_flops": {"kind", "instruction_set"},
    "attend_stopped_requests": {"kind", "instruction_set"},
    "attend_stopped_compute_seconds": {"kind", "instruction_set"},
    "attend_dropped_requests": set(),
    "attend_loop_delay_seconds": set(),
    "attend_build_info": {"version", "instruction_set"},
    "attend_ready": set(),
    "attend_compute_threads": set(),
    "attend_queue_depth": set(),
    "attend_queue_limit": set(),
    "attend_queue_wait_seconds": set(),
    "attend_computing_requests": set(),
    "attend_calls_in_flight": set(),
    "attend_memory_bytes": {"user"},
    "attend_memory_limit_bytes": {"budget"},
    "attend_layers": set(),
    "attend_layers_limit": set(),
    "attend_uploads": set(),
    "attend_uploads_limit": set(),
    "attend_reload_failures": set(),
    "attend_tenant_compute_seconds": {"tenant"},
    "attend_tenant_layers_bytes": {"tenant"},
    "attend_tenant_memory_bytes": {"tenant"},
    "attend_tenant_refusals": {"tenant"},
    "attend_tenant_requests_in_flight": {"tenant"},
    "attend_tenant_requests": {"tenant"},
    "attend_connections": {"door"},
    "attend_refused_connections": set(),
    "attend_ended_connections": {"reason"},
    "attend_log_dropped_lines": set(),
    "process_cpu_seconds": set(),
    "process_resident_memory_bytes": set(),
    "process_virtual_memory_bytes": set(),
    "process_threads": set(),
    "process_open_fds": set(),
    "process_max_fds": set(),
    "process_start_time_seconds": set(),
}


def attend_request(tokens=5, dim=16):
    embeddings = np.random.default_rng(tokens).standard_normal((tokens, dim), dtype=np.float32)
    return pb.AttendRequest(embeddings=to_tensor(embeddings))


def of(method, service=ATTENTION, kind="unary"):
    return {"grpc_type": kind, "grpc_service": service, "grpc_method": method}


class PagesTest(ServerTestCase):
    FLAGS = ADMIN

    def test_three_pages_and_nothing_else(self):
        port = self.server.admin_port
        for path, body in (("/livez", "ok\n"), ("/readyz", "ok\n"), ("/readyz?verbose", "ok\n")):
            status, headers, got = ask(port, path)
            self.assertEqual((status, got), (200, body), path)
            self.assertEqual(headers["Cache-Control"], "no-store")
        self.assertEqual(ask(port, "/metrics")[1]["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        for path in ("/", "/metrics/", "/Metrics", "//metrics", "/%6detrics", "/livez.", "/debug/pprof", "*"):
            self.assertEqual(ask(port, path)[0], 404, path)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            status, headers, _ = ask(port, "/metrics", method)
            self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"), method)
        self.assertEqual(ask(port, "/metrics", "POST", b"x")[0], 413)
        status, headers, body = ask(port, "/metrics", "HEAD")
        self.assertEqual((status, body), (200, ""))
        self.assertGreater(int(headers["Content-Length"]), 10_000)

    def test_all_series_exist_from_the_start(self):
        page = Scrape(self.server.admin_port)
        self.assertEqual(set(page.families), set(ALWAYS))
        for name, labels in ALWAYS.items():
            family = page.families[name]
            self.assertTrue(family.documentation, name)
            self.assertNotEqual(family.type, "unknown", name)
            self.assertTrue(family.samples, f"{name} has no number")
            for sample in family.samples:
                self.assertEqual(set(sample.labels) - {"le"}, labels, name)
        started = page.labels("grpc_server_started_total")
        methods = {(each["grpc_service"], each["grpc_method"]) for each in started}
        self.assertLessEqual(self.served(), methods)
        self.assertIn(("unknown", "unknown"), methods)
        codes = {code.name for code in grpc.StatusCode}
        for service, method in methods:
            handled = page.labels("grpc_server_handled_total")
            here = {each["grpc_code"] for each in handled if (each["grpc_service"], each["grpc_method"]) == (service, method)}
            self.assertEqual(len(here), len(codes), method)
        self.assertIn("server_stream", {each["grpc_type"] for each in started})

    def served(self):
        """The methods of the protocol that bytes which are no message do not find UNIMPLEMENTED."""
        served = set()
        for file in (pb.DESCRIPTOR, layers_pb.DESCRIPTOR):
            for service in file.services_by_name.values():
                for method in service.methods:
                    call = self.server.channel.stream_stream(f"/{service.full_name}/{method.name}")
                    if call(iter([b"\xff"]), timeout=60).code() != grpc.StatusCode.UNIMPLEMENTED:
                        served.add((service.full_name, method.name))
        return served

    def test_strangers_make_no_series(self):
        before = len(Scrape(self.server.admin_port).text.splitlines())
        for i in range(3):
            call = self.server.channel.unary_unary(f"/no.Service{i}/Method")
            self.assertEqual(call.future(b"", timeout=60).code(), grpc.StatusCode.UNIMPLEMENTED)
        page = Scrape(self.server.admin_port)
        self.assertEqual(len(page.text.splitlines()), before)
        unknown = of("unknown", "unknown")
        self.assertGreaterEqual(page.value("grpc_server_handled_total", **unknown, grpc_code="Unimplemented"), 3)


class CountsTest(unittest.TestCase):
    """Each on a server of its own, so that every number is known."""

    def test_unary_calls(self):
        good, calls, bad = attend_request(), 7, pb.AttendRequest()
        with Server(*ADMIN) as server:
            before = time.monotonic()
            answers = [server.stub.Attend(good, timeout=60) for _ in range(calls)]
            self.assertEqual(call_failure(server.stub.Attend, bad).code, grpc.StatusCode.INVALID_ARGUMENT)
            seconds = time.monotonic() - before
            page = Scrape(server.admin_port)
        attend = of("Attend")
        self.assertEqual(page.value("grpc_server_started_total", **attend), calls + 1)
        self.assertEqual(page.value("grpc_server_handled_total", **attend, grpc_code="OK"), calls)
        self.assertEqual(page.value("grpc_server_handled_total", **attend, grpc_code="InvalidArgument"), 1)
        self.assertEqual(page.sum("grpc_server_handled_total"), calls + 1)
        self.assertEqual(page.value("grpc_server_handling_seconds_count", **attend), calls + 1)
        self.assertEqual(page.value("grpc_server_handling_seconds_bucket", **attend, le="+Inf"), calls + 1)
        self.assertGreater(page.value("grpc_server_handling_seconds_sum", **attend), 0)
        self.assertLess(page.value("grpc_server_handling_seconds_sum", **attend), seconds)
        self.assertEqual(page.value("grpc_server_msg_received_bytes_total", **attend), calls * good.ByteSize())
        self.assertEqual(
            page.value("grpc_server_msg_sent_bytes_total", **attend), sum(answer.ByteSize() for answer in answers)
        )
        self.assertEqual(page.value("grpc_server_msg_sent_total", **attend), calls)
        self.assertEqual(page.sum("attend_computed_requests_total", kind="attend"), calls)
        # 5 x 5 pairs, 16 wide: a product for the score and one for the value, 2 operations each.
        flops = page.sum("attend_compute_flops_total", kind="attend")
        self.assertGreaterEqual(flops, calls * 5 * 5 * 16 * 4)
        self.assertEqual(flops % calls, 0)
        self.assertGreater(page.sum("attend_compute_seconds_total", kind="attend"), 0)
        self.assertLess(page.sum("attend_compute_seconds_total", kind="attend"), seconds)
        self.assertEqual(page.sum("attend_computed_requests_total", kind="scaled_dot_product_attention"), 0)

    def test_connections(self):
        with Server(*ADMIN, "--max-connections", "2") as server, contextlib.ExitStack() as stack:
            server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            self.assertEqual(Scrape(server.admin_port).value("attend_connections", door="grpc"), 1)
            for _ in range(3):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            end = time.monotonic() + 60
            while (page := Scrape(server.admin_port)).value("attend_refused_connections_total") < 2:
                self.assertLess(time.monotonic(), end, page.text)
            self.assertEqual(page.value("attend_connections", door="grpc"), 2)
            self.assertGreaterEqual(page.value("attend_connections", door="admin"), 1)

    def test_buckets_ascend_and_hold_what_is_faster(self):
        with Server(*ADMIN) as server:
            for _ in range(5):
                server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            page = Scrape(server.admin_port)
        name = "grpc_server_handling_seconds_bucket"
        bounds = sorted(float(labels["le"]) for labels in page.labels(name) if labels["grpc_method"] == "GetServerInfo")
        self.assertEqual(bounds[0], 10e-6)
        text = {float(labels["le"]): labels["le"] for labels in page.labels(name)}
        counts = [page.value(name, **of("GetServerInfo"), le=text[bound]) for bound in bounds]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 5)

    def test_requests_of_a_stream(self):
        good, count = attend_request(), 20
        with Server(*ADMIN) as server:
            requests = [pb.StreamAttendRequest(id=i, attend=good) for i in range(count)]
            requests.append(pb.StreamAttendRequest(id=count))  # Without what to compute.
            answers = list(server.stub.StreamAttend(iter(requests), timeout=60))
            page = Scrape(server.admin_port)
        self.assertEqual(len(answers), count + 1)
        stream = of("StreamAttend", kind="bidi_stream")
        self.assertEqual(page.value("grpc_server_handled_total", **stream, grpc_code="OK"), 1)
        self.assertEqual(page.value("attend_stream_requests_total", grpc_code="OK"), count)
        self.assertEqual(page.value("attend_stream_requests_total", grpc_code="InvalidArgument"), 1)
        self.assertEqual(page.value("grpc_server_msg_received_total", **stream), count + 1)
        self.assertEqual(
            page.value("grpc_server_msg_received_bytes_total", **stream), sum(each.ByteSize() for each in requests)
        )
        self.assertEqual(
            page.value("grpc_server_msg_sent_bytes_total", **stream), sum(each.ByteSize() for each in answers)
        )

    def test_layers_and_what_they_take(self):
        with Server(*ADMIN) as server:
            empty = Scrape(server.admin_port)
            layers = [upload(server.layers, f"layer{i}", Weights(i).file()) for i in range(3)]
            page = Scrape(server.admin_port)
        self.assertEqual((empty.value("attend_layers"), page.value("attend_layers")), (0, 3))
        taken = page.value("attend_memory_bytes", user="layers") - empty.value("attend_memory_bytes", user="layers")
        self.assertEqual(taken, sum(layer.memory_bytes for layer in layers))
        self.assertEqual(page.value("attend_uploads"), 0)
        create = of("CreateLayer", "attend.v1.LayerService", "client_stream")
        self.assertEqual(page.value("grpc_server_handled_total", **create, grpc_code="OK"), 3)
        answers = [layers_pb.CreateLayerResponse(layer=layer) for layer in layers]
        self.assertEqual(page.value("grpc_server_msg_sent_total", **create), 3)
        self.assertEqual(page.value("grpc_server_msg_sent_bytes_total", **create), sum(each.ByteSize() for each in answers))

    def test_a_deleted_layer_counts_until_its_last_request_has_ended(self):
        with Server(*ADMIN, "--threads", "1", "--inline-flops", "0") as server:
            def taken():
                return Scrape(server.admin_port).value("attend_memory_bytes", user="layers")

            layer = upload(server.layers, "gone", Weights(1).file())
            ahead = server.stub.ScaledDotProductAttention.future(endless_request())
            wait_until(lambda: Scrape(server.admin_port).value("attend_computing_requests") == 1, "it computes")
            request = attend_request()
            request.layer_name = "gone"
            waiting = server.stub.Attend.future(request)
            wait_until(lambda: Scrape(server.admin_port).value("attend_queue_depth") == 1, "a request has the layer")
            server.layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="gone"), timeout=60)
            self.assertEqual(taken(), layer.memory_bytes)
            ahead.cancel()
            waiting.result(PATIENCE)
            wait_until(lambda: taken() == 0, "its memory is given back")

    def test_refusals_by_reason_and_cancelled_work(self):
        with Server(*ADMIN, "--threads", "1", "--max-queued-requests", "0") as server:
            running = server.stub.ScaledDotProductAttention.future(endless_request())
            wait_until(lambda: Scrape(server.admin_port).value("attend_computing_requests") == 1, "it computes")
            busy = Scrape(server.admin_port)
            self.assertGreater(busy.value("attend_memory_bytes", user="requests"), 0)
            self.assertEqual(busy.value("attend_calls_in_flight"), 1)
            self.assertGreater(busy.value("attend_queue_wait_seconds"), 0)
            for _ in range(3):
                self.assertEqual(call_failure(server.stub.Attend, attend_request()).code, grpc.StatusCode.UNAVAILABLE)
            running.cancel()
            wait_until(lambda: Scrape(server.admin_port).value("attend_computing_requests") == 0, "it is stopped")
            with self.assertRaises(grpc.RpcError) as caught:
                server.stub.ScaledDotProductAttention(endless_request(), timeout=1)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            wait_until(lambda: Scrape(server.admin_port).value("attend_calls_in_flight") == 0, "all have ended")
            # A thread that decodes hears of a call's end later than the caller does.
            wait_until(lambda: Scrape(server.admin_port).value("attend_memory_bytes", user="requests") == 0, "memory is given back")
            page = Scrape(server.admin_port)
        self.assertEqual(page.value("attend_refusals_total", reason="QUEUE_FULL"), 3)
        self.assertEqual(page.sum("attend_stopped_requests_total"), 1)
        self.assertGreater(page.sum("attend_stopped_compute_seconds_total"), 0)
        self.assertEqual(page.sum("grpc_server_started_total"), page.sum("grpc_server_handled_total"))

    def test_scraped_under_load_no_count_goes_back_and_none_is_lost(self):
        callers, each = 4, 200
        with Server(*ADMIN) as server:
            done = threading.Event()
            seen, wrong = [], []

            def watch():
                while not done.is_set():
                    page = Scrape(server.admin_port)
                    seen.append(page.value("grpc_server_handled_total", **of("Attend"), grpc_code="OK"))
                    if page.sum("grpc_server_handled_total") > page.sum("grpc_server_started_total"):
                        wrong.append("more calls ended than started")

            def call():
                with server.new_channel() as channel:
                    stub = pb_grpc.AttentionServiceStub(channel)
                    for _ in range(each):
                        stub.Attend(attend_request(), timeout=60)

            watcher = threading.Thread(target=watch)
            threads = [threading.Thread(target=call) for _ in range(callers)]
            for thread in [watcher, *threads]:
                thread.start()
            for thread in threads:
                thread.join()
            done.set()
            watcher.join()
            last = Scrape(server.admin_port).value("grpc_server_handled_total", **of("Attend"), grpc_code="OK")
        self.assertEqual(last, callers * each)
        self.assertEqual(seen, sorted(seen))
        self.assertFalse(wrong)

    def test_the_process_as_the_system_sees_it(self):
        with Server(*ADMIN) as server:
            page = Scrape(server.admin_port)
            self.assertAlmostEqual(page.value("process_resident_memory_bytes"), server.rss_bytes(), delta=64 << 20)
            self.assertLessEqual(page.value("process_cpu_seconds_total"), server.cpu_seconds())
            descriptors = len(list(pathlib.Path(f"/proc/{server.pid}/fd").iterdir()))
            self.assertAlmostEqual(page.value("process_open_fds"), descriptors, delta=3)
            threads = len(list(pathlib.Path(f"/proc/{server.pid}/task").iterdir()))
            self.assertAlmostEqual(page.value("process_threads"), threads, delta=3)
            self.assertAlmostEqual(page.value("process_start_time_seconds"), time.time(), delta=120)
            wait_until(lambda: Scrape(server.admin_port).value("attend_loop_delay_seconds_count") > 2, "loops are measured")


class ProbesTest(unittest.TestCase):
    def test_a_draining_server_is_alive_and_not_ready(self):
        with Server(*ADMIN, "--drain-wait", "60s", "--drain-timeout", "1s") as server:
            self.assertEqual(ask(server.admin_port, "/readyz")[0], 200)
            server.terminate()
            wait_until(lambda: ask(server.admin_port, "/readyz")[0] == 503, "not ready")
            self.assertEqual(ask(server.admin_port, "/readyz")[2], "draining\n")
            self.assertEqual(ask(server.admin_port, "/livez")[0], 200)
            self.assertEqual(Scrape(server.admin_port).value("attend_ready"), 0)
            # Calls are still taken, and counted.
            server.stub.Attend(attend_request(), timeout=60)
            page = Scrape(server.admin_port)
            self.assertEqual(page.value("grpc_server_handled_total", **of("Attend"), grpc_code="OK"), 1)
            server.terminate()  # Hurries.

    def test_there_is_no_door_unless_it_is_asked_for(self):
        with Server(log_level="info") as server:
            self.assertEqual(len(server.ports), 1)
            self.assertNotIn("admin door", server.log())

    def test_addresses_that_are_none_or_taken_are_refused(self):
        for address, words in (
            ("unix:/tmp/admin", "--admin-listen: 'unix:/tmp/admin' is not host:port"),
            ("9090", "--admin-listen: '9090' is not host:port"),
            ("127.0.0.1:50051", "is an address of another door too"),
        ):
            command = [BINARY, "--listen", "127.0.0.1:50051", "--admin-listen", address, "--check-config"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(result.returncode, 2)
            self.assertIn(words, result.stderr)
        with Server(*ADMIN) as server, self.assertRaisesRegex(RuntimeError, r"\(--admin-listen\): another process"):
            Server("--admin-listen", f"127.0.0.1:{server.admin_port}")


class CertificateTest(unittest.TestCase):
    def test_the_expiry_is_that_of_the_file_as_it_was_last_read(self):
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = f"{directory}/server.pem", f"{directory}/server.key"

            def make(days):
                command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
                subprocess.run(
                    [*command.split(), "-days", str(days), "-keyout", key, "-out", certificate], check=True, capture_output=True
                )
                end = subprocess.run(
                    ["openssl", "x509", "-noout", "-enddate", "-in", certificate], check=True, capture_output=True, text=True
                ).stdout.strip()
                return datetime.datetime.strptime(end, "notAfter=%b %d %H:%M:%S %Y %Z").replace(
                    tzinfo=datetime.UTC
                ).timestamp()

            name = "attend_tls_certificate_expiry_timestamp_seconds"
            first = make(3)
            with Server(*ADMIN, "--tls-cert", certificate, "--tls-key", key) as server:

                def becomes(expected):
                    server.hang_up()
                    wait_until(lambda: Scrape(server.admin_port).value(name) == expected, f"the expiry is {expected}")

                self.assertEqual(Scrape(server.admin_port).value(name), first)
                becomes(make(30))
                old_key = pathlib.Path(key).read_text()
                make(60)
                pathlib.Path(key).write_text(old_key)  # The server goes on with the old certificate.
                becomes(0)
        with Server(*ADMIN) as server:
            self.assertNotIn(name, Scrape(server.admin_port).families)


class TraceTest(unittest.TestCase):
    def test_a_call_is_logged_with_its_trace_if_it_has_one(self):
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        server = Server("--log-format", "json", log_level="debug")
        for metadata in (
            (("x-request-id", "order-17"), ("traceparent", trace)),
            (("x-request-id", "two words"), ("traceparent", trace.upper())),
            (),
        ):
            server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60, metadata=metadata)
        log = server.stop()
        lines = [json.loads(line) for line in log.splitlines() if '"call finished"' in line]
        self.assertEqual([line.get("request_id") for line in lines], ["order-17", None, None])
        self.assertEqual([line.get("traceparent") for line in lines], [trace, None, None])


if __name__ == "__main__":
    unittest.main()
