"""deploy/observability against the real Prometheus, which scrapes real servers: every query of the dashboard and of the
rules has data under load, and each alert fires when its fault is injected and clears when that ends.

`make test-observability` runs it (nightly, minutes). In the rules, `for` and ranges are seconds instead of minutes.
"""

import contextlib
import http.server
import json
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

import grpc
import numpy as np

from attend_testing.admin import Scrape, ask
from attend_testing.layers import Weights, upload
from attend_testing.load import endless_request, heavy_request
from attend_testing.observability import alert_names, dashboard_queries, hurried_rules
from attend_testing.server import SOURCE_DIR, Server
from attend_testing.stubs import layers_grpc, layers_pb, pb, pb_grpc
from attend_testing.tensors import to_tensor

PATIENCE = 90


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """A real one that scrapes the ports in its list once a second; each is the instance `127.0.0.1:PORT`."""

    def __init__(self, directory):
        self._directory = pathlib.Path(directory)
        self._targets = self._directory / "targets.json"
        self.port = free_port()
        self.scrape([])
        hurried_rules(self._directory / "rules.yaml")
        (self._directory / "prometheus.yaml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                    "rule_files": ["rules.yaml"],
                    "scrape_configs": [
                        {"job_name": "attend", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
                    ],
                }
            )
        )
        found = subprocess.run([SOURCE_DIR / "scripts" / "find-prometheus.sh"], check=True, capture_output=True, text=True)
        self._log = open(self._directory / "log", "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                f"{found.stdout.strip()}/prometheus",
                f"--config.file={self._directory}/prometheus.yaml",
                f"--storage.tsdb.path={self._directory}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def stop(self):
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def scrape(self, ports):
        """From now on, these and no others."""
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}" for port in ports]}]))
        new.rename(self._targets)

    def _get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)["data"]

    def query(self, expression):
        return self._get("query", query=expression)["result"]

    def firing(self):
        return {(alert["labels"]["alertname"], alert["labels"].get("instance", "")) for alert in self._get("alerts")["alerts"]
                if alert["state"] == "firing"}  # fmt: skip

    def rule_queries(self):
        return {rule["name"]: rule["query"] for group in self._get("rules")["groups"] for rule in group["rules"]}


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.3)


def small():
    return pb.AttendRequest(embeddings=to_tensor(np.ones((5, 16), np.float32)))


class Load:
    """Calls until it ends; errors are part of it."""

    def __init__(self, call):
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(call,))
        self._thread.start()

    def _run(self, call):
        while not self._done.wait(0.05):
            with contextlib.suppress(grpc.RpcError):
                call()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


@contextlib.contextmanager
def as_another_version(port):
    """A port where the page of the server at `port` is that of another build, as after half an update."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, _, text = ask(port, self.path)
            version = re.compile(r'^(attend_build_info\{(?:.*,)?version=")[^"]*', re.MULTILINE)
            text, changed = version.subn(r"\g<1>0.0.1", text)
            self.send_response(status if changed == 1 else 500)  # Else it would be the same build.
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        try:
            yield relay.server_port
        finally:
            relay.shutdown()
            thread.join()


class AlertsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="attend-prometheus-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.prometheus = Prometheus(cls.directory.name)
        cls.addClassCleanup(cls.prometheus.stop)
        wait_until(lambda: cls.prometheus.query("vector(1)"), "Prometheus answers")

    def test_every_alert_has_its_fault(self):
        text = pathlib.Path(__file__).read_text()
        untried = {name for name in alert_names() if f'wait_for_quiet("{name}"' not in text}
        self.assertEqual(untried, set())

    @contextlib.contextmanager
    def server(self, *flags, **options):
        """A server that Prometheus scrapes."""
        with Server("--admin-listen", f"127.0.0.1:{free_port()}", *flags, **options) as server:
            self.prometheus.scrape([server.admin_port])
            self.wait_for_data(server.admin_port)
            yield server

    def wait_for_data(self, port):
        """A server that loads has no metrics but this one and the process's."""
        wait_until(lambda: self.prometheus.query(f'attend_ready{{instance="127.0.0.1:{port}"}} == 1'), "a first scrape")

    def is_firing(self, name, port):
        """`port`: None for an alert that is about no single server."""
        return (name, f"127.0.0.1:{port}" if port else "") in self.prometheus.firing()

    def wait_for_alert(self, name, port=None):
        wait_until(lambda: self.is_firing(name, port), f"{name} fires")

    def wait_for_quiet(self, name, port=None):
        wait_until(lambda: not self.is_firing(name, port), f"{name} clears")

    def test_every_query_has_data_under_load(self):
        with tempfile.TemporaryDirectory() as directory:
            certificate = self.make_certificate(directory, days=30)
            with self.server("--threads", "2", "--tls-cert", certificate, "--tls-key", f"{directory}/server.key") as server:
                credentials = grpc.ssl_channel_credentials(pathlib.Path(certificate).read_bytes())
                options = (("grpc.ssl_target_name_override", "localhost"),)
                with grpc.secure_channel(server.address, credentials, options) as channel:
                    self.load_and_query(channel)

    def load_and_query(self, channel):
        stub, layers = pb_grpc.AttentionServiceStub(channel), layers_grpc.LayerServiceStub(channel)
        upload(layers, "layer", Weights(0).file())

        def work():
            stub.Attend(small(), timeout=5)
            list(stub.StreamAttend(iter([pb.StreamAttendRequest(id=1, attend=small())]), timeout=5))
            stub.ScaledDotProductAttention(heavy_request(length=512), timeout=5)
            with contextlib.suppress(grpc.RpcError):
                stub.ScaledDotProductAttention(endless_request(), timeout=0.02)  # Refused or stopped.
            with contextlib.suppress(grpc.RpcError):
                stub.Attend(pb.AttendRequest(), timeout=5)

        with Load(work):
            for title, query in dashboard_queries(interval="15s"):
                # A query that divides by 0 or asks for a quantile of nothing gives NaN at first.
                wait_until(lambda query=query: self.numbers(query), f"'{title}' has data: {query}")
            for name, query in self.prometheus.rule_queries().items():
                # Most alerts have none, as it should be; what they look at is there.
                selectors = re.findall(r"\w+\{[^}]*\}", query)
                self.assertTrue(selectors, query)
                for selector in selectors:
                    wait_until(lambda selector=selector: self.numbers(selector), f"{name} has data: {selector}")

    def numbers(self, query):
        return [each for each in self.prometheus.query(query) if each["value"][1] != "NaN"]

    def make_certificate(self, directory, days):
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
        command += " -addext subjectAltName=DNS:localhost"
        new = f"{directory}/new.pem"
        subprocess.run([*command.split(), "-days", str(days), "-keyout", f"{directory}/server.key", "-out", new],
                       check=True, capture_output=True)  # fmt: skip
        return str(pathlib.Path(new).rename(f"{directory}/server.pem"))

    def test_down(self):
        port = free_port()
        self.prometheus.scrape([port])
        server = Server("--admin-listen", f"127.0.0.1:{port}")
        self.wait_for_data(port)
        server.kill()
        self.wait_for_alert("AttendDown", port)
        with Server("--admin-listen", f"127.0.0.1:{port}"):
            self.wait_for_quiet("AttendDown", port)

    def test_restarts(self):
        port = free_port()
        self.prometheus.scrape([port])
        for _ in range(4):
            with Server("--admin-listen", f"127.0.0.1:{port}"):
                self.wait_for_data(port)
                time.sleep(1.2)
        with Server("--admin-listen", f"127.0.0.1:{port}"):
            self.wait_for_alert("AttendRestarts", port)
            self.wait_for_quiet("AttendRestarts", port)

    def test_drain_that_does_not_end(self):
        port = free_port()
        self.prometheus.scrape([port])
        with Server("--admin-listen", f"127.0.0.1:{port}", "--drain-wait", "1h") as server:
            self.wait_for_data(port)
            server.terminate()
            self.wait_for_alert("AttendNotReady", port)
            server.terminate()
        with Server("--admin-listen", f"127.0.0.1:{port}"):
            self.wait_for_quiet("AttendNotReady", port)

    def test_more_arrives_than_can_be_done(self):
        with self.server("--threads", "1", "--max-queued-requests", "1") as server:
            port = server.admin_port
            waiting = [server.stub.ScaledDotProductAttention.future(endless_request()) for _ in range(2)]
            with Load(lambda: server.stub.ScaledDotProductAttention(heavy_request(length=2048), timeout=60)):
                self.wait_for_alert("AttendRefusesForLoad", port)
                self.wait_for_alert("AttendQueueSlow", port)
            for call in waiting:
                call.cancel()
            self.wait_for_quiet("AttendQueueSlow", port)
            self.wait_for_quiet("AttendRefusesForLoad", port)

    def test_work_that_is_thrown_away(self):
        with self.server("--threads", "1") as server:
            with Load(lambda: self.start_and_cancel(server)):
                self.wait_for_alert("AttendStopsWork", server.admin_port)
            self.wait_for_quiet("AttendStopsWork", server.admin_port)

    def start_and_cancel(self, server):
        call = server.stub.ScaledDotProductAttention.future(endless_request())
        time.sleep(0.5)
        call.cancel()

    def test_memory_of_requests(self):
        with Server("--admin-listen", "127.0.0.1:0") as server:
            call = server.stub.ScaledDotProductAttention.future(endless_request())
            wait_until(lambda: Scrape(server.admin_port).value("attend_computing_requests") == 1, "it computes")
            needed = int(Scrape(server.admin_port).value("attend_memory_bytes", user="requests"))
            call.cancel()
        with self.server("--max-memory-in-flight-bytes", str(needed + needed // 50)) as server:
            call = server.stub.ScaledDotProductAttention.future(endless_request())
            self.wait_for_alert("AttendMemoryNearlyTaken", server.admin_port)
            call.cancel()
            self.wait_for_quiet("AttendMemoryNearlyTaken", server.admin_port)

    def test_memory_of_layers(self):
        with Server("--admin-listen", "127.0.0.1:0") as server:
            needed = upload(server.layers, "layer", Weights(0, dim=256).file()).memory_bytes
        with self.server("--max-layers-bytes", str(needed + needed // 50)) as server:
            upload(server.layers, "layer", Weights(0, dim=256).file())
            self.wait_for_alert("AttendLayersMemoryNearlyTaken", server.admin_port)
            server.layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="layer"), timeout=60)
            self.wait_for_quiet("AttendLayersMemoryNearlyTaken", server.admin_port)

    def test_a_disk_that_fails(self):
        with tempfile.TemporaryDirectory() as directory, self.server("--data-dir", f"{directory}/layers") as server:
            shutil.rmtree(f"{directory}/layers")
            with Load(lambda: upload(server.layers, "layer", Weights(0, dim=256).file())):
                self.wait_for_alert("AttendInternalErrors", server.admin_port)
                self.wait_for_alert("AttendStorageFails", server.admin_port)
            self.wait_for_quiet("AttendInternalErrors", server.admin_port)
            self.wait_for_quiet("AttendStorageFails", server.admin_port)

    def test_polling_threads_that_are_kept(self):
        flags = ("--inline-flops", "1e12", "--max-request-flops", "1e13", "--polling-threads", "1")
        with self.server(*flags) as server:
            with Load(lambda: server.stub.ScaledDotProductAttention(heavy_request(length=20000), timeout=60)):
                self.wait_for_alert("AttendPollingThreadsBusy", server.admin_port)
            self.wait_for_quiet("AttendPollingThreadsBusy", server.admin_port)

    def test_more_connections_than_there_may_be(self):
        def open_too_many():
            with contextlib.ExitStack() as connections, contextlib.suppress(OSError):
                for _ in range(8):
                    connections.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))

        with self.server("--max-connections", "4") as server:
            with Load(open_too_many):
                self.wait_for_alert("AttendRefusesConnections", server.admin_port)
            self.wait_for_quiet("AttendRefusesConnections", server.admin_port)

    def test_files_that_run_out(self):
        with self.server(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))) as server:
            with contextlib.ExitStack() as connections:
                while Scrape(server.admin_port).value("process_open_fds") < 88:
                    connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    time.sleep(0.02)
                self.wait_for_alert("AttendFilesNearlyExhausted", server.admin_port)
            self.wait_for_quiet("AttendFilesNearlyExhausted", server.admin_port)

    def test_principals_that_cannot_be_taken_over(self):
        with tempfile.TemporaryDirectory() as directory:
            principals = pathlib.Path(directory) / "principals.json"
            principals.write_text('{"principals": []}')
            # The file is looked at as often as those of TLS.
            with self.server("--principals", str(principals), "--tls-refresh-interval", "1s") as server:
                principals.write_text("{broken")
                self.wait_for_alert("AttendReloadFails", server.admin_port)
                principals.write_text('{"principals": []}')
                self.wait_for_quiet("AttendReloadFails", server.admin_port)

    def test_certificates(self):
        with tempfile.TemporaryDirectory() as directory:
            certificate = self.make_certificate(directory, days=3)
            with self.server("--tls-cert", certificate, "--tls-key", f"{directory}/server.key") as server:
                self.wait_for_alert("AttendCertificateExpires", server.admin_port)
                self.make_certificate(directory, days=30)
                self.wait_for_quiet("AttendCertificateExpires", server.admin_port)
                pathlib.Path(certificate).write_text("no certificate")
                self.wait_for_alert("AttendCertificateUnreadable", server.admin_port)
                self.make_certificate(directory, days=30)
                self.wait_for_quiet("AttendCertificateUnreadable", server.admin_port)

    def test_an_update_that_has_stopped_half_way(self):
        with self.server() as server, as_another_version(server.admin_port) as other:
            self.prometheus.scrape([server.admin_port, other])
            self.wait_for_alert("AttendVersionsDiffer")
            self.prometheus.scrape([server.admin_port])
            self.wait_for_quiet("AttendVersionsDiffer")


if __name__ == "__main__":
    unittest.main()
