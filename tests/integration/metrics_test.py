"""Numbers for operators, each after calls of which it is known what it must be: metrics, a call's line in the log, a drain's."""

import hashlib
import json
import pathlib
import re
import tempfile
import time
import unittest

import numpy as np

from attend_testing.admin import Scrape
from attend_testing.errors import call_failure
from attend_testing.http_door import FLAGS as HTTP
from attend_testing.http_door import Door
from attend_testing.load import endless_request, wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, Server
from attend_testing.stubs import pb
from attend_testing.tensors import to_tensor
from estimate_test import described
from tenants_test import Caller, TenantTestCase, principal

ADMIN = ("--admin-listen", "127.0.0.1:0")


def attend_request(tokens=5, dim=16):
    return pb.AttendRequest(embeddings=to_tensor(np.ones((tokens, dim), np.float32)))


def of(method):
    return {"grpc_type": "unary", "grpc_service": "attend.v1.AttentionService", "grpc_method": method}


class LimitsTest(unittest.TestCase):
    def test_what_runs_and_its_limits(self):
        flags = {"--threads": 3, "--max-queued-requests": 17, "--max-layers": 5, "--max-uploads": 4, "--max-layers-bytes": 50_000_000,
                 "--max-memory-in-flight-bytes": 300_000_000}  # fmt: skip
        words = [str(word) for flag in flags.items() for word in flag]
        with Server(*HTTP, *ADMIN, *words) as server, Door(server.http_port) as door:
            info = server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
            self.assertEqual(door.request("GET", "/livez").status, 404)  # Which leaves a connection open.
            page = Scrape(server.admin_port)
            wait_until(lambda: Scrape(server.admin_port).value("attend_connections", door="admin") == 1, "one scrape at a time")
        self.assertEqual(page.labels("attend_build_info"), [{"version": info.version, "instruction_set": info.instruction_set}])
        self.assertEqual(page.sum("attend_build_info"), 1)
        for name, expected in {
            "attend_ready": 1, "attend_compute_threads": 3, "attend_queue_limit": 17, "attend_layers": 0, "attend_layers_limit": 5,
            "attend_uploads": 0, "attend_uploads_limit": 4, "attend_queue_depth": 0, "attend_queue_wait_seconds": 0,
            "attend_computing_requests": 0, "attend_dropped_requests_total": 0, "attend_refused_connections_total": 0,
            "attend_reload_failures_total": 0, "attend_log_dropped_lines_total": 0,
        }.items():  # fmt: skip
            self.assertEqual(page.value(name), expected, name)
        for budget, expected in (("in_flight", 300_000_000), ("layers", 50_000_000)):
            self.assertEqual(page.value("attend_memory_limit_bytes", budget=budget), expected)
        for door_name in ("grpc", "http"):
            self.assertEqual(page.value("attend_connections", door=door_name), 1)
        self.assertEqual(page.sum("attend_ended_connections_total"), 0)


class QueueTest(unittest.TestCase):
    """One request computes until it is stopped; of three behind it one goes; a fifth finds the queue full."""

    def setUp(self):
        self.server = Server(*ADMIN, "--threads", "1", "--inline-flops", "0", "--max-queued-requests", "3", log_level="debug")
        self.addCleanup(lambda: self.server.alive() and self.server.stop())
        self.stub = self.server.stub

    def page(self):
        return Scrape(self.server.admin_port)

    def becomes(self, expected, name, **labels):
        wait_until(lambda: self.page().value(name, **labels) == expected, f"{name} is {expected}")

    def test_what_became_of_each(self):
        started, heavy, small = time.monotonic(), endless_request(), attend_request()
        heavy_cost = self.stub.EstimateCost(pb.EstimateCostRequest(scaled_dot_product_attention=described(heavy)), timeout=60)
        small_cost = self.stub.EstimateCost(pb.EstimateCostRequest(attend=small), timeout=60)
        ahead = self.stub.ScaledDotProductAttention.future(heavy)
        self.becomes(1, "attend_computing_requests")
        waiting = [self.stub.Attend.future(small) for _ in range(3)]
        self.becomes(3, "attend_queue_depth")
        self.assertEqual(call_failure(self.stub.Attend, small).reason, "QUEUE_FULL")
        self.becomes(4, "attend_calls_in_flight")
        self.check_while_one_computes(self.page(), heavy, heavy_cost.predicted_milliseconds * 1e-3)
        waiting[0].cancel()
        self.becomes(3, "attend_calls_in_flight")
        ahead.cancel()
        answers = [call.result(PATIENCE) for call in waiting[1:]]
        self.becomes(0, "attend_computing_requests")
        self.becomes(0, "attend_calls_in_flight")
        self.becomes(0, "attend_memory_bytes", user="requests")
        page, seconds = self.page(), time.monotonic() - started
        for name in ("attend_queue_depth", "attend_queue_wait_seconds"):
            self.assertEqual(page.value(name), 0, name)
        self.assertEqual(page.value("attend_dropped_requests_total"), 1)
        self.check_work(page, small_cost.flops, seconds)
        self.check_calls(page, small, answers)
        self.check_drain(self.server.stop())

    def check_while_one_computes(self, page, heavy, predicted_seconds):
        self.assertEqual(page.value("attend_queue_depth"), 3)
        self.assertEqual(page.value("attend_computing_requests"), 1)
        self.assertEqual(page.value("attend_dropped_requests_total"), 0)
        self.assertGreater(page.value("attend_queue_wait_seconds"), 0)
        self.assertLess(page.value("attend_queue_wait_seconds"), 2 * predicted_seconds)
        self.assertGreaterEqual(page.value("attend_memory_bytes", user="requests"), heavy.ByteSize())
        self.assertEqual(page.value("attend_memory_bytes", user="uploads"), 0)

    def check_work(self, page, small_flops, seconds):
        both = {"attend": (2, 0, 2 * small_flops), "scaled_dot_product_attention": (0, 1, 0)}
        for kind, (computed, stopped, flops) in both.items():
            self.assertEqual(page.sum("attend_computed_requests_total", kind=kind), computed)
            self.assertEqual(page.sum("attend_stopped_requests_total", kind=kind), stopped)
            self.assertEqual(page.sum("attend_compute_flops_total", kind=kind), flops)
            for name, count in (("attend_compute_seconds_total", computed), ("attend_stopped_compute_seconds_total", stopped)):
                spent = page.sum(name, kind=kind)
                self.assertEqual(spent > 0, count > 0, (name, kind))
                self.assertLess(spent, seconds, (name, kind))
        self.assertEqual(page.value("attend_refusals_total", reason="QUEUE_FULL"), 1)
        self.assertEqual(page.sum("attend_refusals_total"), 1)

    def check_calls(self, page, small, answers):
        handled = {"OK": 2, "Canceled": 1, "Unavailable": 1}
        for code in (labels["grpc_code"] for labels in page.labels("grpc_server_handled_total") if labels["grpc_method"] == "Attend"):
            self.assertEqual(page.value("grpc_server_handled_total", **of("Attend"), grpc_code=code), handled.get(code, 0), code)
        self.assertEqual(page.value("grpc_server_handled_total", **of("ScaledDotProductAttention"), grpc_code="Canceled"), 1)
        for name, expected in {
            "grpc_server_started_total": 4, "grpc_server_handling_seconds_count": 4,
            # The one that found the queue full was refused before its message was read.
            "grpc_server_msg_received_total": 3, "grpc_server_msg_received_bytes_total": 3 * small.ByteSize(),
            "grpc_server_msg_sent_total": 2, "grpc_server_msg_sent_bytes_total": sum(answer.ByteSize() for answer in answers),
        }.items():  # fmt: skip
            self.assertEqual(page.value(name, **of("Attend")), expected, name)

    def check_drain(self, log):
        (line,) = [line for line in log.splitlines() if " drained " in line]
        counts = {name: int(value) for name, value in re.findall(r"(\w+)=(-?\d+)", line)}
        created = counts.pop("calls_created")
        self.assertGreaterEqual(created, 7)
        self.assertEqual(counts, {"calls_released": created, "memory_in_flight_bytes": 0, "tasks_queued": 4, "tasks_started": 3,
                                  "tasks_finished": 2, "tasks_stopped": 1, "tasks_dropped": 1, "refused": 1})  # fmt: skip


class CallLineTest(unittest.TestCase):
    def test_it_has_the_numbers_that_the_caller_has(self):
        server = Server(*HTTP, "--inline-flops", "0", "--log-format", "json", log_level="debug")
        self.addCleanup(lambda: server.alive() and server.stop())
        tokens = np.ones((300, 64), np.float32)
        request, small = sdpa_request(tokens, tokens, tokens), b'{"embeddings": {"shape": [2, 2], "values": [1, 0, 0, 1]}}'
        started = time.monotonic()
        answer, call = server.stub.ScaledDotProductAttention.with_call(request, timeout=60)
        with Door(server.http_port) as door:
            web = door.post("Attend", small)
        most = 1000 * (time.monotonic() - started)
        lines = [json.loads(line) for line in server.stop().splitlines() if '"call finished"' in line]
        by_grpc, by_http = sorted(lines, key=lambda line: line["method"], reverse=True)
        self.check(by_grpc, dict(call.trailing_metadata())["server-timing"], request.ByteSize(), answer.ByteSize(), most)
        self.check(by_http, web.headers["server-timing"], len(small), len(web.body), most)

    def check(self, line, timing, request_bytes, response_bytes, most):
        self.assertEqual((line["request_bytes"], line["response_bytes"]), (request_bytes, response_bytes))
        stages = {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", timing)}
        self.assertEqual(set(stages), {"receive", "queue", "compute", "send"})
        for name, milliseconds in stages.items():  # Cut off, to the caller, after the third decimal.
            self.assertGreater(line[f"{name}_ms"], 0, name)
            self.assertAlmostEqual(line[f"{name}_ms"], milliseconds + 0.0005, delta=0.000501, msg=name)
        self.assertGreaterEqual(line["duration_ms"], sum(line[f"{name}_ms"] for name in stages) - 1e-6)
        self.assertLess(line["duration_ms"], most)


class TenantNumbersTest(TenantTestCase):
    def test_the_first_twenty_and_all_others_together(self):
        names = [f"t{i:02}" for i in range(22)]
        one_at_a_time = {"tenants": [{"name": name, "max_requests_in_flight": 1} for name in names]}
        file = {**one_at_a_time, "principals": [principal(name, name) for name in names]}
        server, started = self.start(*ADMIN, "--threads", "2", file=file), time.monotonic()
        callers, small = {name: Caller(self, server, name) for name in names}, attend_request()
        counts = {name: 1 + i % 3 for i, name in enumerate(names)}
        for name, caller in callers.items():
            for _ in range(counts[name]):
                caller.call(caller.attention.Attend, small)

        labels = {each["tenant"] for each in Scrape(server.admin_port).labels("attend_tenant_requests_total")} - {"_other"}
        self.assertEqual((len(labels), labels - {*names, "shared"}), (20, set()))
        own, others = sorted(labels - {"shared"}), sorted(set(names) - labels)
        first, last = callers[own[0]], callers[others[-1]]

        def page():
            return Scrape(server.admin_port)

        def check_requests(more):  # Besides the small ones.
            found = {name: page().value("attend_tenant_requests_total", tenant=name) for name in [*own, "_other"]}
            self.assertEqual(found, {**{name: counts[name] for name in own}, own[0]: counts[own[0]] + more,
                                     "_other": sum(counts[name] for name in others) + more})  # fmt: skip

        check_requests(0)
        before = page()
        for name in [*own, "_other"]:
            self.assertGreater(before.value("attend_tenant_compute_seconds_total", tenant=name), 0, name)
            for gauge in ("attend_tenant_requests_in_flight", "attend_tenant_layers_bytes", "attend_tenant_refusals_total"):
                self.assertEqual(before.value(gauge, tenant=name), 0, (gauge, name))
        self.assertLess(before.sum("attend_tenant_compute_seconds_total"), time.monotonic() - started)

        heavy = endless_request()
        held = [caller.attention.ScaledDotProductAttention.future(heavy, metadata=caller.metadata) for caller in (first, last)]
        wait_until(lambda: page().value("attend_computing_requests") == 2, "both compute")
        for caller, times in ((first, 2), (last, 3)):
            for _ in range(times):
                self.assertEqual(caller.failure(caller.attention.Attend, small)[1], "TENANT_QUOTA")
        busy = page()
        for label, refusals in ((own[0], 2), ("_other", 3), (own[1], 0)):
            is_busy = label != own[1]
            self.assertEqual(busy.value("attend_tenant_requests_in_flight", tenant=label), int(is_busy), label)
            self.assertEqual(busy.value("attend_tenant_refusals_total", tenant=label), refusals, label)
            memory = busy.value("attend_tenant_memory_bytes", tenant=label)
            self.assertEqual(memory >= heavy.ByteSize(), is_busy, label)
        all_memory = busy.value("attend_memory_bytes", user="requests")
        self.assertEqual(busy.sum("attend_tenant_memory_bytes"), all_memory)
        self.assertEqual(busy.value("attend_refusals_total", reason="TENANT_QUOTA"), 5)
        for call in held:
            call.cancel()
        for name in ("attend_tenant_requests_in_flight", "attend_tenant_memory_bytes", "attend_computing_requests"):
            wait_until(lambda name=name: page().sum(name) == 0, f"{name} is 0")
        check_requests(1)


class ReloadTest(unittest.TestCase):
    def test_each_look_at_a_file_of_no_use_is_counted(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "principals.json"
            token = {"sha256": hashlib.sha256(b"token").hexdigest()}
            good = json.dumps({"principals": [{"name": "p", "roles": ["compute"], "tokens": [token]}]})
            path.write_text(good)
            with Server(*ADMIN, "--principals", str(path), "--tls-refresh-interval", "1h", log_level="info") as server:
                def failures():
                    return Scrape(server.admin_port).value("attend_reload_failures_total")

                self.assertEqual(failures(), 0)
                path.write_text("{broken")
                for count in (1, 2, 3):
                    server.hang_up()
                    wait_until(lambda expected=count: failures() == expected, f"{count} failures")
                path.write_text(good.replace('"p"', '"q"'))
                server.hang_up()
                wait_until(lambda: "principals reloaded" in server.log(), "the good file is read")
                self.assertEqual(failures(), 3)


if __name__ == "__main__":
    unittest.main()
