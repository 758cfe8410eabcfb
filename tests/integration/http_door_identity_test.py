"""Who may call at the HTTP door: tokens and certificates, as at gRPC's."""

import contextlib
import functools
import http.client
import json
import pathlib
import ssl
import tempfile
import unittest

import grpc
import numpy as np

from attend_testing.http_door import ATTENTION, FLAGS, FORMS, JSON, Answer, Door, HttpError
from attend_testing.load import wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import PATIENCE, Server
from attend_testing.stubs import layers_pb, pb, pb_grpc
from auth_test import SECRETS, Certificates, principals
from http_door_test import SMALL


class IdentityTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def test_tokens(self):
        flags = (*FLAGS, "--principals", self.write("principals.json", principals()), "--anonymous-roles", "none")
        with Server(*flags) as server, Door(server.http_port) as door:
            for authorization, status, reason in (
                (f"Bearer {SECRETS['compute']}", 200, None), (None, 401, "NO_CREDENTIAL"), ("Bearer garbage", 401, "BAD_CREDENTIAL"),
                (f"Bearer {SECRETS['expired']}", 401, "BAD_CREDENTIAL"), (f"Bearer {SECRETS['layers']}", 403, "MISSING_ROLE"),
                ([f"Bearer {SECRETS['compute']}"] * 2, 401, "BAD_CREDENTIAL"),
            ):  # fmt: skip
                with self.subTest(authorization):
                    answer = door.post("Attend", SMALL, headers={"Authorization": authorization})
                    self.assertEqual(answer.status, status, answer.body)
                    if reason:
                        self.assertEqual(HttpError(answer).failure.reason, reason)

    def test_the_audit_and_the_log_have_the_ids_of_each_call(self):
        """By whatever door it came."""
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        compute, layers = (f"Bearer {SECRETS[name]}" for name in ("compute", "layers"))

        def metadata(authorization, request_id):
            return (("authorization", authorization), ("x-request-id", request_id), ("traceparent", trace))

        flags = ("--principals", self.write("principals.json", principals()), "--anonymous-roles", "none")
        with Server(*FLAGS, *flags, "--log-format", "json", log_level="info") as server, Door(server.http_port) as door:
            deletion = layers_pb.DeleteLayerRequest(name="a")
            with self.assertRaises(grpc.RpcError):
                server.layers.DeleteLayer(deletion, metadata=metadata(compute, "denied"), timeout=PATIENCE)
            headers = {"Authorization": layers, "X-Request-Id": "denied-by-http", "TraceParent": trace}
            self.assertEqual(door.post("Attend", SMALL, headers=headers).status, 403)
            header = layers_pb.CreateLayerHeader(name="a", init=layers_pb.SeededWeights(embed_dim=4))
            upload = iter([layers_pb.CreateLayerRequest(header=header)])
            server.layers.CreateLayer(upload, metadata=metadata(layers, "uploaded"), timeout=PATIENCE)
            server.layers.DeleteLayer(deletion, metadata=metadata(layers, "deleted"), timeout=PATIENCE)
            headers.update({"X-Request-Id": "two words", "TraceParent": trace.upper()})
            self.assertEqual(door.post("Attend", SMALL, headers=headers).status, 403)

            def lines():  # The last one may be half-written.
                return [
                    (line.get("event", line["message"]), line.get("request_id"), line.get("traceparent"))
                    for line in map(json.loads, server.log().split("\n")[:-1])
                    if line["message"] in ("audit", "layer loaded")
                ]

            wait_until(lambda: len(lines()) == 6, "six lines")
            self.assertEqual(lines(), [
                ("denied", "denied", trace), ("denied", "denied-by-http", trace), ("layer loaded", "uploaded", trace),
                ("layer created", "uploaded", trace), ("layer deleted", "deleted", trace), ("denied", None, None),
            ])  # fmt: skip

    def test_tls_and_client_certificates(self):
        certificates = Certificates(self.folder)
        for authority in ("authority", "stranger"):
            certificates.authority(authority)
        certificates.leaf("server", "authority", "DNS:localhost,IP:127.0.0.1")
        certificates.leaf("caller", "authority", "URI:spiffe://example/caller")
        certificates.leaf("stranger-leaf", "stranger")
        path = certificates.path
        tls = ("--tls-cert", path("server.crt"), "--tls-key", path("server.key"))
        file = self.write("principals.json", principals(compute=["uri:spiffe://example/caller"]))

        def connect(server, certificate=None):
            context = ssl.create_default_context(cafile=path("authority.crt"))
            if certificate:
                context.load_cert_chain(path(f"{certificate}.crt"), path(f"{certificate}.key"))
            return lambda: http.client.HTTPSConnection("127.0.0.1", server.http_port, timeout=PATIENCE, context=context)

        with Server(*FLAGS, *tls) as server:
            with Door(server.http_port, connect(server)) as door:
                self.assertEqual(door.post("Attend", SMALL).status, 200)
                x = np.random.default_rng(0).standard_normal((1, 2, 300, 64)).astype(np.float32)
                request = sdpa_request(x, x, x)
                for form in FORMS:  # Many records of TLS.
                    door.call("ScaledDotProductAttention", request, pb.ScaledDotProductAttentionResponse, form)
                origin = f"https://127.0.0.1:{server.http_port}"
                self.assertEqual(door.post("Attend", SMALL, headers={"Origin": origin}).status, 200)
            with contextlib.suppress(OSError, http.client.HTTPException), Door(server.http_port) as plain:
                self.assertNotEqual(plain.post("Attend", SMALL).status, 200)
        with Server(*FLAGS, *tls, "--tls-client-ca", path("authority.crt"), "--principals", file) as server:
            with Door(server.http_port, connect(server, "caller")) as door:
                self.assertEqual(door.post("Attend", SMALL).status, 200)
            with Door(server.http_port, connect(server, "server")) as door:
                self.assertEqual(HttpError(door.post("Attend", SMALL)).failure.reason, "BAD_CREDENTIAL")
            for certificate in (None, "stranger-leaf"):
                refused = self.assertRaises((OSError, http.client.HTTPException))
                with self.subTest(certificate), refused, Door(server.http_port, connect(server, certificate)) as door:
                    door.post("Attend", SMALL)

    def test_a_body_that_is_too_slow_is_answered_over_tls(self):
        certificates = Certificates(self.folder)
        certificates.authority("authority")
        certificates.leaf("server", "authority", "IP:127.0.0.1")
        path = certificates.path
        context = ssl.create_default_context(cafile=path("authority.crt"))
        tls = ("--tls-cert", path("server.crt"), "--tls-key", path("server.key"))
        with Server(*FLAGS, *tls, "--first-message-timeout", "300ms") as server:
            connection = http.client.HTTPSConnection("127.0.0.1", server.http_port, timeout=PATIENCE, context=context)
            with contextlib.closing(connection):
                connection.putrequest("POST", ATTENTION + "Attend")
                connection.putheader("Content-Type", JSON)
                connection.putheader("Content-Length", str(len(SMALL)))
                connection.endheaders(SMALL[:-1])
                failure = HttpError(Answer(connection.getresponse())).failure
        self.assertEqual((failure.code, failure.reason), (grpc.StatusCode.DEADLINE_EXCEEDED, "NO_MESSAGE"))

    def test_a_renewed_certificate_is_shown_to_new_connections(self):
        certificates = Certificates(self.folder)
        certificates.authority("authority")
        certificates.leaf("server", "authority", "IP:127.0.0.1")
        path = certificates.path
        with Server(*FLAGS, "--tls-cert", path("server.crt"), "--tls-key", path("server.key")) as server:
            def shown():
                return ssl.get_server_certificate(("127.0.0.1", server.http_port))
            before = shown()
            certificates.leaf("server", "authority", "IP:127.0.0.1")
            server.hang_up()
            wait_until(lambda: shown() != before, "the new certificate is shown")

    def test_the_first_common_name_is_the_only_one(self):
        """As gRPC knows certificates."""
        certificates = Certificates(self.folder)
        certificates.authority("authority")
        certificates.leaf("server", "authority", "DNS:localhost,IP:127.0.0.1")
        certificates.leaf("caller", "authority", names=None, common_names=["first", "second"])
        path = certificates.path
        tls = ("--tls-cert", path("server.crt"), "--tls-key", path("server.key"), "--tls-client-ca", path("authority.crt"))
        context = ssl.create_default_context(cafile=path("authority.crt"))
        context.load_cert_chain(path("caller.crt"), path("caller.key"))
        credentials = grpc.ssl_channel_credentials(*map(certificates.text, ("authority.crt", "caller.key", "caller.crt")))
        for name, is_known in (("first", True), ("second", False)):
            file = self.write("principals.json", principals(compute=[f"cn:{name}"]))
            with self.subTest(name), Server(*FLAGS, *tls, "--principals", file) as server:
                port = server.http_port
                connect = functools.partial(http.client.HTTPSConnection, "127.0.0.1", port, timeout=PATIENCE, context=context)
                with Door(port, connect) as door:
                    self.assertEqual(door.post("Attend", SMALL).status == 200, is_known)
                with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
                    by_grpc = pb_grpc.AttentionServiceStub(channel).GetServerInfo.future(pb.GetServerInfoRequest(), timeout=PATIENCE)
                    self.assertEqual(by_grpc.code() == grpc.StatusCode.OK, is_known)

    def test_a_revoked_certificate_makes_no_connection_from_the_next_reload_on(self):
        """As by gRPC (auth_test.py). A connection that is open then ends with its age."""
        certificates = Certificates(self.folder)
        certificates.authority("authority")
        for name in ("server", "caller", "other"):
            certificates.leaf(name, "authority", "DNS:localhost,IP:127.0.0.1")
        certificates.revoke("authority")
        path = certificates.path
        flags = ("--tls-cert", path("server.crt"), "--tls-key", path("server.key"), "--tls-client-ca", path("authority.crt"),
                 "--tls-client-crl", path("authority.crl"), "--max-connection-age", "3s")  # fmt: skip

        def door(server, name):
            context = ssl.create_default_context(cafile=path("authority.crt"))
            context.load_cert_chain(path(f"{name}.crt"), path(f"{name}.key"))
            port = server.http_port
            return Door(port, lambda: http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=context))

        def status(server, name):
            try:
                with door(server, name) as once:
                    return once.post("Attend", SMALL).status
            except (OSError, http.client.HTTPException):
                return None

        def is_served(name):  # A connection of a machine that stood still may be too old before it asks.
            wait_until(lambda: status(server, name) == 200, f"{name} is served")

        with Server(*FLAGS, *flags) as server, door(server, "caller") as held:
            is_served("caller")
            is_served("other")
            with contextlib.suppress(OSError, http.client.HTTPException):
                held.post("Attend", SMALL)
            certificates.revoke("authority", "caller")
            server.hang_up()
            wait_until(lambda: status(server, "caller") is None, "the certificate is revoked")
            is_served("other")

            def held_is_closed():  # What comes next is a new connection.
                try:
                    return held.post("Attend", SMALL).status != 200
                except (OSError, http.client.HTTPException):
                    return True

            wait_until(held_is_closed, "the connection that was open has ended")


if __name__ == "__main__":
    unittest.main()
