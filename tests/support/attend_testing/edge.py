"""deploy/envoy with the real Envoy, in front of real servers."""

import hashlib
import http.client
import json
import pathlib
import re
import subprocess
import time

from attend_testing.certificates import Certificates
from attend_testing.doors import Door
from attend_testing.server import PATIENCE, SOURCE_DIR, Server

DEPLOY = SOURCE_DIR / "deploy" / "envoy"
SERVER_NAME = "attend.attend.svc"
# As deploy/envoy/README.md says: what the proxy's certificate is called.
PROXY_NAME = "spiffe://example.org/attend/edge"
# Who may write layers, as the configuration has it; somebody else, who has the role at the server; somebody whom the server does
# not know.
CALLERS = {
    "trainer": "spiffe://example.org/attend/layers/trainer",
    "search": "spiffe://example.org/attend/search",
    "guest": "spiffe://example.org/attend/guest",
}
# Who calls servers without the proxy.
DIRECT_NAME = "spiffe://example.org/attend/direct"
TOKEN = "e" * 32


def make_certificates(folder):
    """One authority for servers and the proxy, one for clients, and a stranger's."""
    certificates = Certificates(folder)
    for authority in ("servers", "clients", "stranger"):
        certificates.authority(authority)
    certificates.leaf("server", "servers", names=f"DNS:{SERVER_NAME}")
    certificates.leaf("tls", "servers", names=f"DNS:localhost,URI:{PROXY_NAME}")
    certificates.leaf("direct", "servers", names=f"URI:{DIRECT_NAME}")
    for name, uri in CALLERS.items():
        certificates.leaf(name, "clients", names=f"URI:{uri}")
    certificates.leaf("foe", "stranger", names=f"URI:{CALLERS['trainer']}")
    return certificates


def server_flags(certificates, edge_roles=()):
    """TLS between the proxy and the server, and principals, as deploy/envoy/README.md has them. `edge_roles` are the proxy's own,
    which callers have who show neither certificate nor token."""
    path = pathlib.Path(certificates.path("principals.json"))
    everything = ["compute", "layers", "observe"]
    entries = [{"name": "edge", "roles": list(edge_roles), "certificates": [f"uri:{PROXY_NAME}"]},
               {"name": "direct", "roles": everything, "certificates": [f"uri:{DIRECT_NAME}"]},
               {"name": "robot", "roles": everything, "tokens": [{"sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}]}]  # fmt: skip
    entries += [{"name": name, "roles": everything, "certificates": [f"uri:{CALLERS[name]}"]} for name in ("trainer", "search")]
    path.write_text(json.dumps({"principals": entries}))
    return ("--tls-cert", certificates.path("server.crt"), "--tls-key", certificates.path("server.key"),
            "--tls-client-ca", certificates.path("servers.crt"), "--principals", str(path), "--anonymous-roles", "none",
            "--trusted-proxies", f"uri:{PROXY_NAME}")  # fmt: skip


def find_envoy():
    found = subprocess.run([SOURCE_DIR / "scripts" / "find-envoy.sh"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def _replace(text, old, new):
    if old not in text:
        raise AssertionError(f"deploy/envoy/envoy.yaml no longer has: {old}")
    return text.replace(old, new)


def configure(folder, ports):
    """The configuration as it is committed, for files in `folder` and servers on `ports` of this machine."""
    for file in sorted((DEPLOY / "secrets").iterdir()):
        (folder / file.name).write_text(_localise(file.read_text(), folder))
    text = _replace((DEPLOY / "envoy.yaml").read_text(), "{address: 0.0.0.0, port_value: 50443}", "{address: 127.0.0.1, port_value: 0}")
    text = _replace(text, "{address: 127.0.0.1, port_value: 9901}", "{address: 127.0.0.1, port_value: 0}")
    endpoint = "              - endpoint: {address: {socket_address: {address: attend-headless.attend.svc, port_value: 50051}}}\n"
    lines = [_replace(endpoint, "attend-headless.attend.svc, port_value: 50051", f"127.0.0.1, port_value: {port}") for port in ports]
    (folder / "envoy.yaml").write_text(_localise(_replace(text, endpoint, "".join(lines)), folder))
    return folder / "envoy.yaml"


def _localise(text, folder):
    """Paths in /etc/envoy become those of the folder's files, where certificates have the names of make_certificates()."""
    for path, file in (("clients/ca", "clients"), ("server/ca", "servers")):
        text = text.replace(f"/etc/envoy/{path}.crt", f"{folder}/{file}.crt")
    text = re.sub(r"/etc/envoy/(?:tls|secrets)/", f"{folder}/", text)
    text = re.sub(r"/etc/envoy/(?:tls|clients|server)}", f"{folder}}}", text)
    if "/etc/envoy" in text:
        raise AssertionError(f"deploy/envoy has a path that the tests do not know:\n{text}")
    return text


class Edge:
    """Envoy before the servers on `ports`. Use as a context manager, or call stop()."""

    def __init__(self, certificates, ports):
        self._folder = pathlib.Path(certificates.path("")).absolute()
        self._certificates = certificates
        file = configure(self._folder, ports)
        admin = self._folder / "envoy-admin"
        admin.unlink(missing_ok=True)
        self._log = self._folder / "envoy.log"
        command = [find_envoy(), "-c", str(file), "--admin-address-path", str(admin),
                   "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]  # fmt: skip
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait(lambda: admin.exists() and ":" in admin.read_text())
            self._admin_port = int(admin.read_text().rsplit(":", 1)[1])
            self._wait(lambda: self.ask("/ready").startswith("LIVE"))
            listeners = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
            self.port = listeners[0]["local_address"]["socket_address"]["port_value"]
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait(self, condition):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Envoy did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.01)

    def ask(self, path):
        """A page of Envoy's admin door."""
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def counter(self, name):
        """The sum of the counters that end in `name`."""
        lines = self.ask("/stats").splitlines()
        return sum(int(value) for key, _, value in (line.partition(": ") for line in lines) if key.endswith(name) and value.isdigit())

    def alive(self):
        return self._process.poll() is None

    def door(self, caller=""):
        certificate = self._certificates.path(caller) if caller else ""
        return Door(self.port, self._certificates.path("servers.crt"), certificate)

    def stop(self):
        if self.alive():
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def servers(certificates, count=1, *flags):
    """So many servers behind a proxy; the caller stops them."""
    return [Server(*server_flags(certificates), *flags) for _ in range(count)]
