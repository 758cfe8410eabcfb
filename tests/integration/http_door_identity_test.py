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
from google.protobuf import json_format

from attend_testing.certificates import Certificates
from attend_testing.errors import failure_of
from attend_testing.http_door import ATTENTION, FLAGS, FORMS, JSON, Answer, Door, HttpError
from attend_testing.load import wait_until
from attend_testing.requests import sdpa_request
from attend_testing.server import CHANNEL_OPTIONS, PATIENCE, Server
from attend_testing.stubs import layers_pb, pb, pb_grpc
from attend_testing.tensors import to_tensor
from auth_test import LAYERS, NEEDS, ROLES, SECRETS, WRONG_TOKENS, all_methods, bearer, principals
from http_door_test import SMALL

Code = grpc.StatusCode
# The outcome of a call: (code, reason).
OK = (Code.OK, "")
NO_CREDENTIAL, BAD_CREDENTIAL = (Code.UNAUTHENTICATED, "NO_CREDENTIAL"), (Code.UNAUTHENTICATED, "BAD_CREDENTIAL")
MISSING_ROLE, NOT_FOUND = (Code.PERMISSION_DENIED, "MISSING_ROLE"), (Code.NOT_FOUND, "LAYER_NOT_FOUND")
UNKNOWN_METHOD = (Code.UNIMPLEMENTED, "UNKNOWN_METHOD")


def offered(layer="common"):
    """Every method of the door with a request that it answers, if there is such a layer."""
    attend = pb.AttendRequest(embeddings=to_tensor(np.ones((2, 8), np.float32)), layer_name=layer)
    heads = np.ones((1, 1, 2, 4), np.float32)
    return {
        ATTENTION + "Attend": attend,
        ATTENTION + "ScaledDotProductAttention": sdpa_request(heads, heads, heads),
        ATTENTION + "EstimateCost": pb.EstimateCostRequest(attend=attend),
        ATTENTION + "GetServerInfo": pb.GetServerInfoRequest(),
        LAYERS + "GetLayer": layers_pb.GetLayerRequest(name=layer),
        LAYERS + "ListLayers": layers_pb.ListLayersRequest(),
    }


def forwarded(*values):
    return tuple(("x-forwarded-client-cert", value) for value in values)


RIGHT = "By=spiffe://x/proxy;Hash=0a;URI=spiffe://x/layers"
NAMES_LAYERS = (forwarded(RIGHT), forwarded("By=spiffe://x/proxy;Hash=0a;URI=;DNS=layers.x"))
NAMES_THE_PROXY, NAMES_NOBODY = forwarded("URI=spiffe://x/proxy"), forwarded("URI=spiffe://x/foe")
# Two elements, no name, a key that means nothing, nothing at all; two headers.
MALFORMED = (*map(forwarded, (f"{RIGHT},{RIGHT}", "URI=", "Email=a", "")), forwarded(RIGHT, RIGHT))

NAME_A_LAYER = {ATTENTION + "Attend", ATTENTION + "EstimateCost", LAYERS + "GetLayer"}


def by_grpc(channel, method, request, metadata):
    try:
        channel.unary_unary(method)(request.SerializeToString(), metadata=metadata, timeout=PATIENCE)
    except grpc.RpcError as error:
        failure = failure_of(error)
        return failure.code, failure.reason
    return OK


def by_http(door, method, request, metadata, form):
    headers = {}
    for name, value in metadata:
        headers.setdefault(name, []).append(value)
    body = json_format.MessageToJson(request).encode() if form == JSON else request.SerializeToString()
    answer = door.post(method, body, form, headers)
    if answer.status == 200:
        return OK
    failure = HttpError(answer).failure  # Looks at the status, too.
    return failure.code, failure.reason


def always(outcome):
    return lambda method: outcome


def with_roles(*roles):
    return lambda method: OK if NEEDS[method] & set(roles) else MISSING_ROLE


def of_another_tenant(role):
    """What the layer's name says to one who may ask, and is of another tenant than the layer."""
    return lambda method: NOT_FOUND if role in NEEDS[method] and method in NAME_A_LAYER else with_roles(role)(method)


class IdentityTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)


class MatrixTest(IdentityTestCase):
    """Every method of the door with every kind of credential: the documented outcome in both forms, which is gRPC's."""

    def flags(self, *more, **certificates):
        file = self.write("principals.json", principals(**certificates))
        services = ("--http-services", "attention,layers", "--layer", "common=init:1:8")
        return (*FLAGS, *services, "--principals", file, *more)

    def check(self, channel, door, metadata, expected, note, layer="common"):
        requests = offered(layer)
        for method, request in requests.items():
            outcomes = [by_grpc(channel, method, request, metadata)]
            outcomes += [by_http(door, method, request, metadata, form) for form in FORMS]
            self.assertEqual(outcomes, [expected(method)] * len(outcomes), f"{note}: {method}")
        for method in set(all_methods()) - set(requests):
            outcome = by_http(door, method, pb.GetServerInfoRequest(), metadata, JSON)
            self.assertEqual(outcome, UNKNOWN_METHOD, f"{note}: {method}")

    def test_every_method_with_every_kind_of_token(self):
        with Server(*self.flags("--anonymous-roles", "none")) as server, Door(server.http_port) as door:
            header = layers_pb.CreateLayerHeader(name="private", init=layers_pb.SeededWeights(embed_dim=8))
            messages = iter([layers_pb.CreateLayerRequest(header=header)])
            server.layers.CreateLayer(messages, metadata=bearer(SECRETS["elsewhere"]), timeout=PATIENCE)
            check = functools.partial(self.check, server.channel, door)
            check((), always(NO_CREDENTIAL), "none")
            for note, metadata in WRONG_TOKENS.items():
                check(metadata, always(BAD_CREDENTIAL), note)
            for role in (*ROLES, "nothing"):
                check(bearer(SECRETS[role]), with_roles(role), role)
                check(bearer(SECRETS[role]), of_another_tenant(role), f"{role} of another tenant", layer="private")
            check(bearer(SECRETS["elsewhere"]), with_roles(*ROLES), "its own layer", layer="private")
            for caller, names in (("layers", ["common"]), ("elsewhere", ["common", "private"])):
                headers = dict(bearer(SECRETS[caller]))
                request, response = layers_pb.ListLayersRequest(), layers_pb.ListLayersResponse
                listed = door.call(LAYERS + "ListLayers", request, response, JSON, headers)
                self.assertEqual([layer.name for layer in listed.layers], names, caller)

    def test_callers_without_a_credential_have_the_anonymous_roles(self):
        for roles in (*ROLES, "compute,observe"):
            flags = self.flags("--anonymous-roles", roles)
            with self.subTest(roles), Server(*flags) as server, Door(server.http_port) as door:
                self.check(server.channel, door, (), with_roles(*roles.split(",")), roles)

    def test_a_forwarded_certificate_counts_from_a_trusted_proxy_alone(self):
        anonymous, layers, compute = with_roles("observe"), with_roles("layers"), with_roles("compute")
        token, bad = bearer(SECRETS["compute"]), always(BAD_CREDENTIAL)
        others = "10.0.0.0/8,unix,uri:spiffe://x/proxy"
        for proxies in ((), ("--trusted-proxies", others), ("--trusted-proxies", "127.0.0.0/8")):
            trusted = proxies[-1:] == ("127.0.0.0/8",)
            known = ["uri:spiffe://x/layers", "dns:layers.x"]
            flags = self.flags("--anonymous-roles", "observe", *proxies, layers=known)
            with self.subTest(proxies), Server(*flags) as server, Door(server.http_port) as door:
                check = functools.partial(self.check, server.channel, door)
                check((), anonymous, "no header")
                for header in NAMES_LAYERS:
                    check(header, layers if trusted else anonymous, header)
                for header in (NAMES_NOBODY, *MALFORMED):
                    check(header, bad if trusted else anonymous, header)
                # Who shows a token is known by it alone.
                for header in (NAMES_LAYERS[0], *MALFORMED):
                    check(token + header, compute, f"a token and {header}")
                check(bearer("garbage") + NAMES_LAYERS[0], bad, "a wrong token and a right header")

    def test_certificates_and_a_proxy_that_is_known_by_its_own(self):
        certificates = Certificates(self.folder)
        certificates.authority("authority")
        certificates.leaf("server", "authority", "DNS:localhost,IP:127.0.0.1")
        for name in ("proxy", "compute", "observe", "foe"):
            certificates.leaf(name, "authority", f"URI:spiffe://x/{name}")
        path, text = certificates.path, certificates.text
        flags = self.flags(
            "--tls-cert", path("server.crt"), "--tls-key", path("server.key"), "--tls-client-ca", path("authority.crt"),
            "--trusted-proxies", "uri:spiffe://x/proxy",
            compute=["uri:spiffe://x/compute"], observe=["uri:spiffe://x/observe"], nothing=["uri:spiffe://x/proxy"],
            layers=["uri:spiffe://x/layers", "dns:layers.x"],
        )  # fmt: skip

        def check(server, name, cases):
            context = ssl.create_default_context(cafile=path("authority.crt"))
            context.load_cert_chain(path(f"{name}.crt"), path(f"{name}.key"))
            port = server.http_port
            connect = functools.partial(
                http.client.HTTPSConnection, "127.0.0.1", port, timeout=PATIENCE, context=context
            )
            credentials = grpc.ssl_channel_credentials(text("authority.crt"), text(f"{name}.key"), text(f"{name}.crt"))
            options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "localhost"))
            with grpc.secure_channel(server.address, credentials, options) as channel, Door(port, connect) as door:
                for metadata, expected in cases:
                    self.check(channel, door, metadata, expected, f"{name}: {metadata}")

        token, bad = (bearer(SECRETS["layers"]), with_roles("layers")), always(BAD_CREDENTIAL)
        with Server(*flags) as server:
            check(server, "proxy", [
                ((), with_roles()), *((header, with_roles("layers")) for header in NAMES_LAYERS),
                (NAMES_THE_PROXY, with_roles()), *((header, bad) for header in (NAMES_NOBODY, *MALFORMED)),
                token, (token[0] + NAMES_NOBODY, token[1]),
            ])  # fmt: skip
            headers = ((), NAMES_LAYERS[0], NAMES_THE_PROXY, *MALFORMED)
            for name in ("compute", "observe"):  # Whatever a header says that they are.
                own = [(header, with_roles(name)) for header in headers]
                check(server, name, [*own, token, (bearer("garbage"), bad)])
            check(server, "foe", [*((header, bad) for header in headers), token])


class IdentityTest(IdentityTestCase):
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
