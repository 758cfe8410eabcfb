"""A real attend-server process on a free port of the loopback interface, ended by its process id."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

import grpc

from attend_testing import stubs

BUILD_DIR = pathlib.Path(os.environ["ATTEND_BUILD_DIR"])
SOURCE_DIR = pathlib.Path(os.environ.get("ATTEND_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[3]))
# With ATTEND_SERVER tests run against an older server. Flags that it does not have are left out, and tests that need an admin or
# HTTP door are skipped where it has none.
OTHER_BINARY = os.environ.get("ATTEND_SERVER")
BINARY = pathlib.Path(OTHER_BINARY) if OTHER_BINARY else BUILD_DIR / "bin" / "attend-server"
# The trailer `server-timing` of every call: one duration for each station, in milliseconds.
TIMING = r"^receive;dur=\d+\.\d+, queue;dur=\d+\.\d+, compute;dur=\d+\.\d+, send;dur=\d+\.\d+$"

# Long enough for a sanitized server on a busy machine; only a hang reaches it.
PATIENCE = 60

# Sizes up to gRPC's own bound, so that it is the server's limits that are met; one connection for each channel.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def is_sanitized():
    """Whether the server was built with AddressSanitizer, which changes what memory and time mean."""
    return "ATTEND_SANITIZE:STRING=address" in (BUILD_DIR / "CMakeCache.txt").read_text()


def resident_growth(product_bytes):
    """What a server's resident memory may grow by when what the product holds grows by `product_bytes`. AddressSanitizer adds
    to each piece of memory, has a shadow of it, and keeps 256 MiB of what was freed."""
    return 4 * product_bytes + (256 << 20) if is_sanitized() else product_bytes


def known_flags(flags):
    """Those of `flags` that BINARY has, with their values."""
    known = set(re.findall(r"--[a-z0-9-]+", subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True).stdout))
    kept, keep = [], True
    for flag in flags:
        if flag.startswith("--"):
            keep = flag.split("=")[0] in known
            if not keep and flag.split("=")[0] in ("--admin-listen", "--http-listen"):
                raise unittest.SkipTest(f"this server has no {flag}")
        kept += [flag] if keep else []
    return kept


class Server:
    """Started on construction and ready for calls; use as a context manager, or call stop()."""

    def __init__(self, *flags, log_level="warning", binary=BINARY, environment=None, prepare=None):
        """`environment` is added to the process's; `prepare` is called in it before the server starts."""
        self._directory = tempfile.TemporaryDirectory(prefix="attend-test-")
        directory = pathlib.Path(self._directory.name)
        port_file, self._log_path = directory / "port", directory / "log"
        flags = known_flags(flags) if OTHER_BINARY else flags
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATTEND_")}
        command = [str(binary), "--listen", "127.0.0.1:0", "--port-file", str(port_file), "--log-level", log_level]
        if not any(flag.startswith("--drain-wait") for flag in flags):
            command += ["--drain-wait", "0s"]
        started = time.monotonic()
        with open(self._log_path, "wb") as log:
            self._process = subprocess.Popen(
                command + list(flags), stdout=log, stderr=log, env={**kept, **(environment or {})}, preexec_fn=prepare
            )
        self.ports = self._wait_for_ports(port_file)
        self.port = self.ports[0]
        self.startup_seconds, self.startup_cpu_seconds = time.monotonic() - started, self.cpu_seconds()
        self.address = f"127.0.0.1:{self.port}"
        self.channel = self.new_channel()
        self.stub = stubs.pb_grpc.AttentionServiceStub(self.channel)
        self.layers = stubs.layers_grpc.LayerServiceStub(self.channel)

    def _wait_for_ports(self, port_file):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if port_file.exists() and (text := port_file.read_text()).endswith("\n"):
                return [int(port) for port in text.split()]
            if self._process.poll() is not None:
                break
            time.sleep(0.001)
        raise RuntimeError(f"the server did not start:\n{self.stop(check=False)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def admin_port(self):
        """REQUIRES: --admin-listen was among the flags."""
        return self.ports[-1]

    @property
    def http_port(self):
        """REQUIRES: --http-listen was among the flags, and one address of gRPC's."""
        return self.ports[1]

    @property
    def pid(self):
        return self._process.pid

    def new_channel(self):
        return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    def log(self):
        return self._log_path.read_text(errors="replace")

    def alive(self):
        return self._process.poll() is None

    def terminate(self):
        """Asks the server to stop; wait() for it."""
        self._process.send_signal(signal.SIGTERM)

    def hang_up(self):
        """Asks the server to read its files again."""
        self._process.send_signal(signal.SIGHUP)

    def kill(self):
        """Ends it as the kernel would that is out of memory."""
        self._process.kill()
        self._process.wait()
        self.channel.close()
        self._directory.cleanup()

    def wait(self):
        """The exit code; kills a server that does not end."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"the server did not stop:\n{self.log()}") from None

    def stop(self, check=True):
        """Stops the server and returns its log. A server that does not end with 0 has a defect: a sanitizer's report, for one."""
        if hasattr(self, "channel"):
            self.channel.close()
        if self.alive():
            self.terminate()
        code, log = self.wait(), self.log()
        self._directory.cleanup()
        if check and code != 0:
            raise AssertionError(f"the server ended with {code}:\n{log}")
        return log

    def _status_bytes(self, name):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name + ":"))

    def rss_bytes(self):
        return self._status_bytes("VmRSS")

    def peak_rss_bytes(self):
        """The most memory that was resident at a time since reset_peak_rss()."""
        return self._status_bytes("VmHWM")

    def reset_peak_rss(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self):
        """User and system time used so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ServerTestCase(unittest.TestCase):
    """Tests that share one server, started with FLAGS."""

    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.FLAGS)
        cls.addClassCleanup(cls.server.stop)
        cls.stub = cls.server.stub
