"""Why `attend` reaches no server: each cause by a real peer, with certificates that openssl makes."""

import contextlib
import http.server
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import cli_harness
from attend_testing.server import Server

# What the command says of a peer that does not speak as it expects within a second, as no peer does on a machine that pauses.
DOUBTFUL = ("takes connections and says nothing", "takes connections and closes them")


def attend(*arguments, expected=""):
    """Names are resolved by the C library: Debian's c-ares, which gRPC prefers, loses ten bytes for each, and the sanitizer sees it.

    When it says one of DOUBTFUL that is not expected, the command is run again."""
    for _ in range(10):
        run = cli_harness.attend(*arguments, env={"GRPC_DNS_RESOLVER": "native"})
        if not any(text in run.err and text not in expected for text in DOUBTFUL):
            break
    return run


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Certificates:
    """NAME.pem and NAME.key in a folder."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="attend-tls-")

    def pem(self, name):
        return str(pathlib.Path(self.folder.name) / f"{name}.pem")

    def key(self, name):
        return str(pathlib.Path(self.folder.name) / f"{name}.key")

    def make(self, name, san):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-addext", f"subjectAltName={san}", "-keyout", self.key(name), "-out", self.pem(name))  # fmt: skip


@contextlib.contextmanager
def peer(answer):
    """A listener that calls `answer` with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class ConnectionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.certificates = Certificates()
        cls.addClassCleanup(cls.certificates.folder.cleanup)
        for name, san in (("server", "DNS:localhost"), ("friend", "DNS:friend"), ("stranger", "DNS:localhost")):
            cls.certificates.make(name, san)
        tls = ("--tls-cert", cls.certificates.pem("server"), "--tls-key", cls.certificates.key("server"))
        cls.plain, cls.tls = cls.start(), cls.start(*tls)
        cls.mutual = cls.start(*tls, "--tls-client-ca", cls.certificates.pem("friend"))

    @classmethod
    def start(cls, *flags):
        server = Server(*flags, log_level="off")
        cls.addClassCleanup(server.stop)
        return server

    def ca(self, name="server"):
        return ("--tls-ca", self.certificates.pem(name))

    def identity(self, name):
        return ("--tls-cert", self.certificates.pem(name), "--tls-key", self.certificates.key(name))

    def check(self, endpoint, flags, *needles, timeout="10s"):
        """One sentence for each endpoint, and nothing of gRPC's."""
        run = attend("health", "--endpoints", endpoint, "--timeout", timeout, *flags, expected=needles[0])
        self.assertEqual((run.code, run.out), (4, b""), run.err)
        self.assertTrue(run.err.startswith("attend: "), run.err)
        self.assertEqual(run.err.count("\n"), 1, run.err)
        for needle in needles:
            self.assertIn(needle, run.err)

    def test_what_works_works(self):
        """Else every other test here could pass for a reason of its own."""
        for server, flags in ((self.plain, ()), (self.tls, self.ca()), (self.mutual, (*self.ca(), *self.identity("friend")))):
            run = attend("health", "--endpoints", f"localhost:{server.port}", *flags)
            self.assertEqual((run.code, run.text, run.err), (0, "SERVING\n", ""))

    def test_a_server_that_speaks_tls(self):
        for host in ("localhost", "127.0.0.1"):
            self.check(f"{host}:{self.tls.port}", (), f"the server at {host}:{self.tls.port} speaks TLS; add --tls-ca FILE")
        self.check(f"localhost:{self.mutual.port}", (), "speaks TLS; add --tls-ca FILE")

    def test_a_server_that_speaks_plaintext(self):
        self.check(f"localhost:{self.plain.port}", self.ca(), f"localhost:{self.plain.port} speaks plaintext, not TLS; leave out --tls")

    def test_a_certificate_of_another_authority(self):
        address = f"localhost:{self.tls.port}"
        self.check(address, self.ca("stranger"),
                   f"the certificate of {address} is not from an authority in {self.certificates.pem('stranger')}")
        self.check(address, ("--tls",), "is not from an authority that this system trusts; give its authority with --tls-ca FILE")

    def test_a_certificate_for_another_name(self):
        self.check(f"127.0.0.1:{self.tls.port}", self.ca(), "is not for '127.0.0.1' but for localhost", "--tls-server-name")
        self.check(f"localhost:{self.tls.port}", (*self.ca(), "--tls-server-name", "elsewhere"), "is not for 'elsewhere' but for localhost")

    def test_a_client_certificate_that_is_missing_or_foreign(self):
        address = f"localhost:{self.mutual.port}"
        self.check(address, self.ca(), f"the server at {address} demands a client certificate; add --tls-cert FILE and --tls-key FILE")
        self.check(address, (*self.ca(), *self.identity("stranger")), f"refuses the client certificate {self.certificates.pem('stranger')}")

    def test_nothing_listens_there(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            for flags in ((), self.ca()):
                self.check(address, flags, f"nothing listens on {address}; start attend-server --listen {address}")

    def test_of_several_addresses_the_one_that_tells_most_is_reported(self):
        """localhost may be ::1 too, where nothing listens; the server on 127.0.0.1 is the cause."""
        self.check(f"localhost:{self.tls.port}", (), "speaks TLS")

    def test_each_address_is_asked_once(self):
        """The system lists an address for each kind of socket, unless the kind is said."""
        said = []

        def talk(connection):
            said.append(connection.recv(1 << 16))
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.close()

        with peer(talk) as address:
            for _ in range(10):
                said.clear()
                run = cli_harness.attend("health", "--endpoints", address, "--timeout", "10s")
                if not any(text in run.err for text in DOUBTFUL):
                    break
        self.assertIn(f"{address} speaks a protocol that is not gRPC", run.err)
        # gRPC's own connections do not speak HTTP/1.
        self.assertEqual(sum(words.startswith(b"HEAD ") for words in said), 1, said)

    def test_unix_sockets(self):
        with tempfile.TemporaryDirectory(prefix="attend-unix-") as folder:
            path = f"{folder}/s"
            self.check(f"unix:{path}", (), f"there is no socket {path}", f"start attend-server --listen unix:{path}")
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(path)
            self.check(f"unix:{path}", (), f"no server listens on the socket {path}")
            pathlib.Path(folder, "file").touch()
            self.check(f"unix:{folder}/file", (), f"{folder}/file is not a socket")

    def test_another_service(self):
        web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        web.RequestHandlerClass.log_message = lambda *_: None
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        address = f"127.0.0.1:{web.server_port}"
        for flags in ((), self.ca()):
            self.check(address, flags, f"{address} speaks HTTP/1, so it is another service")

    def test_a_peer_that_closes_says_nothing_or_talks(self):
        def talk(connection):
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.recv(1 << 16)
            connection.close()

        with peer(lambda connection: connection.close()) as address:
            self.check(address, (), f"{address} takes connections and closes them")
        with peer(talk) as address:
            self.check(address, (), f"{address} speaks a protocol that is not gRPC")
        kept = []
        with peer(kept.append) as address:
            self.check(address, (), f"{address} takes connections and says nothing", timeout="1s")
            self.check(address, self.ca(), f"{address} takes connections and says nothing", timeout="1s")

    def test_a_command_that_is_stopped_and_goes_on(self):
        """Linux then ends a read with a timeout early, which is no word of the peer's."""
        kept = []
        with peer(kept.append) as address:
            for flags in ((), self.ca()):
                command = [cli_harness.ATTEND, "info", "--endpoints", address, "--timeout", "1s", *flags]
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      env=cli_harness.environment(), text=True) as process:
                    while process.poll() is None:
                        time.sleep(0.2)
                        process.send_signal(signal.SIGSTOP)
                        process.send_signal(signal.SIGCONT)
                    self.assertIn(f"{address} takes connections and says nothing", process.stderr.read())

    def test_a_name_that_does_not_resolve(self):
        self.check("no.such.name.invalid:50051", (), "the name 'no.such.name.invalid' does not resolve")

    def test_each_endpoint_of_a_list_is_reported(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            run = attend("health", "--endpoints", f"127.0.0.1:{port},127.0.0.1:{self.tls.port}")
            self.assertEqual(run.code, 4)
            self.assertIn(f"nothing listens on 127.0.0.1:{port}", run.err)
            self.assertIn(f"the server at 127.0.0.1:{self.tls.port} speaks TLS", run.err)

    def test_every_command_says_it(self):
        for command in (("info",), ("health", "--watch"), ("layers", "list"), ("layers", "get", "x"), ("layers", "delete", "x"),
                        ("layers", "upload", "x", "--init", "1:8")):
            run = attend(*command, "--endpoints", self.tls.address)
            self.assertEqual(run.code, 4)
            self.assertIn("speaks TLS; add --tls-ca", run.err)

    def test_files_with_which_no_handshake_could_succeed_are_found_before_connecting(self):
        pem, key = self.certificates.pem("friend"), self.certificates.key("friend")
        empty = pathlib.Path(self.certificates.folder.name, "empty")
        empty.touch()
        cases = (
            (("--tls-cert", pem, "--tls-key", self.certificates.key("stranger")), "--tls-key: ", "is not the private key"),
            (("--tls-cert", key, "--tls-key", pem), "--tls-cert: ", "exchanged?"),
            (("--tls-ca", key), "--tls-ca: ", "holds a private key and no certificate"),
            (("--tls-ca", str(empty)), "--tls-ca: ", "is empty"),
            (("--tls-ca", self.certificates.folder.name), "--tls-ca: ", "is a directory"),
            (("--tls-ca", "/proc/self/mem"), "--tls-ca: ", "reading '/proc/self/mem' failed"),
            (("--token-file", "/proc/self/mem"), "--token-file: ", "reading /proc/self/mem failed"),
        )
        for flags, *needles in cases:
            run = attend("health", "--endpoints", "127.0.0.1:1", *flags)
            self.assertEqual((run.code, run.out), (2, b""), run.err)
            for needle in needles:
                self.assertIn(needle, run.err)


if __name__ == "__main__":
    unittest.main()
