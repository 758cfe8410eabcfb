"""Envoy's grpc_json_transcoder before a server: the usual way to JSON for a gRPC server that has no door of its own.

The Envoy is the one that judges deploy/envoy (scripts/find-envoy.sh). It has one worker thread, no TLS and no other filter,
which is the least that it can do.
"""

import json
import pathlib
import subprocess
import tempfile
import time

SOURCE_DIR = pathlib.Path(__file__).resolve().parents[3]
SERVICE = "attend.v1.AttentionService"
_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def find_envoy():
    """None, with a sentence on the standard output, when it cannot be had."""
    found = subprocess.run([SOURCE_DIR / "scripts" / "find-envoy.sh"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        print(f"left out: Envoy's JSON transcoder: {found.stderr.strip()}")
        return None
    return found.stdout.strip()


def _configuration(folder, server_port):
    descriptors = folder / "attend.binpb"
    proto = SOURCE_DIR / "proto"
    subprocess.run(["protoc", f"-I{proto}", "--include_imports", f"--descriptor_set_out={descriptors}",
                    "attend/v1/attention_service.proto"], check=True)  # fmt: skip

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    def typed(kind, **fields):
        return {"@type": f"{_EXTENSIONS}.{kind}", **fields}

    filters = [
        {"name": "transcoder", "typed_config": typed("filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
                                                     proto_descriptor=str(descriptors), services=[SERVICE], auto_mapping=True)},
        {"name": "router", "typed_config": typed("filters.http.router.v3.Router")},
    ]  # fmt: skip
    route = {"match": {"prefix": "/"}, "route": {"cluster": "attend", "timeout": "60s"}}
    manager = typed("filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="calls", http_filters=filters,
                    route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})  # fmt: skip
    http2 = typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})
    cluster = {
        "name": "attend", "connect_timeout": "5s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "attend",
                            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server_port)}}]}]},
    }  # fmt: skip
    listener = {"name": "calls", "address": address(0), "filter_chains": [{"filters": [{"name": "calls", "typed_config": manager}]}]}
    return {"admin": {"address": address(0)}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


class Transcoder:
    """A running Envoy; `target` is where it takes JSON. Use as a context manager."""

    def __init__(self, envoy, server_port, core):
        self._folder = tempfile.TemporaryDirectory(prefix="attend-envoy-")
        folder = pathlib.Path(self._folder.name)
        config, admin, self._log = folder / "envoy.json", folder / "admin", folder / "log"
        config.write_text(json.dumps(_configuration(folder, server_port)))
        command = ["taskset", "-c", core, envoy, "-c", str(config), "--admin-address-path", str(admin),
                   "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]  # fmt: skip
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self.target = self._listener(admin)
        except BaseException:
            self.stop()
            raise

    def _listener(self, admin):
        """The address of its listener, once it has one."""
        import urllib.request

        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{admin.read_text()}/listeners?format=json", timeout=5) as page:
                    found = json.load(page)["listener_statuses"]
                return f"127.0.0.1:{found[0]['local_address']['socket_address']['port_value']}"
            except (OSError, ValueError, KeyError, IndexError):
                time.sleep(0.05)
        raise RuntimeError(f"Envoy did not start:\n{self._log.read_text(errors='replace')}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(timeout=30)
        self._folder.cleanup()
