"""Who may call what: every method with every kind of credential; files that change under load; what is written down."""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import http.client
import json
import pathlib
import ssl
import tempfile
import threading
import time
import unittest

import grpc

from attend_testing.certificates import Certificates
from attend_testing.errors import failure_of
from attend_testing.http_door import FLAGS as HTTP_DOOR
from attend_testing.http_door import Door
from attend_testing.load import wait_until
from attend_testing.server import CHANNEL_OPTIONS, PATIENCE, Server
from attend_testing.stubs import health_pb2, layers_pb, pb, reflection_alpha_pb2, reflection_pb2

Code = grpc.StatusCode
ATTENTION, LAYERS = "/attend.v1.AttentionService/", "/attend.v1.LayerService/"

# What a caller needs one of; nothing: anybody may call. A method that is not here fails the test.
NEEDS = {
    ATTENTION + "Attend": {"compute"},
    ATTENTION + "ScaledDotProductAttention": {"compute"},
    ATTENTION + "StreamAttend": {"compute"},
    ATTENTION + "EstimateCost": {"compute"},
    ATTENTION + "GetServerInfo": {"compute", "observe"},
    LAYERS + "CreateLayer": {"layers"},
    LAYERS + "DeleteLayer": {"layers"},
    LAYERS + "GetLayer": {"compute", "layers", "observe"},
    LAYERS + "ListLayers": {"layers", "observe"},
    "/grpc.health.v1.Health/Check": set(),
    "/grpc.health.v1.Health/Watch": set(),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": {"observe"},
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {"observe"},
}

ROLES = ("compute", "layers", "observe")
SECRETS = {name: f"{name}-{'s' * 20}" for name in (*ROLES, "nothing", "expired", "elsewhere")}


def all_methods():
    services = [
        service
        for module in (pb, layers_pb, health_pb2, reflection_pb2, reflection_alpha_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return [f"/{service.full_name}/{method.name}" for service in services for method in service.methods]


def token(secret, **fields):
    return {"sha256": hashlib.sha256(secret.encode()).hexdigest(), **fields}


def principals(**certificates):
    """A principal for each role, named as it, with a token and certificates; one without roles, one whose token is old."""
    entries = [
        {"name": name, "roles": [name] if name in ROLES else [], "tokens": [token(SECRETS[name])],
         "certificates": certificates.get(name, [])}
        for name in (*ROLES, "nothing")
    ]  # fmt: skip
    entries.append({"name": "elsewhere", "tenant": "elsewhere", "roles": list(ROLES), "tokens": [token(SECRETS["elsewhere"])]})
    old = token(SECRETS["expired"], expires="2020-01-01T00:00:00Z")
    entries.append({"name": "expired", "roles": list(ROLES), "tokens": [old]})
    return json.dumps({"principals": entries})


def bearer(secret):
    return (("authorization", f"Bearer {secret}"),)


# Metadata, or headers, that are nobody's: each is BAD_CREDENTIAL.
WRONG_TOKENS = {
    "garbage": bearer("garbage"),
    "empty": bearer(""),
    "nothing at all": (("authorization", ""),),
    "another scheme": (("authorization", "Basic Og=="),),
    "expired": bearer(SECRETS["expired"]),
    "the hash itself": bearer(hashlib.sha256(SECRETS["compute"].encode()).hexdigest()),
    "two": bearer(SECRETS["compute"]) + bearer(SECRETS["layers"]),
    "one twice": 2 * bearer(SECRETS["compute"]),
    "two in one": bearer(f"{SECRETS['compute']}, Bearer {SECRETS['compute']}"),
}


def outcome(channel, method, metadata=()):
    """(code, reason) of a call with one empty message. Whatever the method itself says of it, nobody was refused."""
    call = channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=60)
    try:
        next(call)
    except StopIteration:
        return Code.OK, ""
    except grpc.RpcError as error:
        failure = failure_of(error)
        return failure.code, failure.reason
    finally:
        call.cancel()
    return Code.OK, ""


class AuthTestCase(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, name, text):
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def check(self, channel, metadata, allowed, otherwise, note):
        """Each method ends as `otherwise`, unless `allowed(roles it needs)`."""
        for method in all_methods():
            got = outcome(channel, method, metadata)
            if allowed(NEEDS[method]):
                self.assertNotIn(got[0], (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED), f"{note}: {method}")
            else:
                self.assertEqual(got, otherwise, f"{note}: {method}")


class TokenTest(AuthTestCase):
    def test_every_method_with_every_kind_of_token(self):
        flags = ("--principals", self.write("principals.json", principals()), "--anonymous-roles", "none")
        with Server(*flags) as server:
            def nobody(needs):
                return not needs
            self.check(server.channel, (), nobody, (Code.UNAUTHENTICATED, "NO_CREDENTIAL"), "none")
            for note, metadata in WRONG_TOKENS.items():
                self.check(server.channel, metadata, nobody, (Code.UNAUTHENTICATED, "BAD_CREDENTIAL"), note)
            for role in (*ROLES, "nothing"):
                def allowed(needs, role=role):
                    return not needs or role in needs

                self.check(server.channel, bearer(SECRETS[role]), allowed, (Code.PERMISSION_DENIED, "MISSING_ROLE"), role)

            # Another tenant is no lack of a role: what it cannot see is not found (tenants_test.py).
            self.check(server.channel, bearer(SECRETS["elsewhere"]), lambda needs: True, None, "elsewhere")

    def test_without_a_file_callers_on_this_machine_may_do_everything_and_tokens_are_refused(self):
        with Server() as server:
            self.check(server.channel, (), lambda needs: True, None, "anonymous")
            refused = (Code.UNAUTHENTICATED, "BAD_CREDENTIAL")
            self.check(server.channel, bearer("x"), lambda needs: not needs, refused, "token")

    def test_anonymous_roles(self):
        for roles in ("compute", "layers", "observe", "compute, observe"):
            with self.subTest(roles), Server("--anonymous-roles", roles) as server:
                def allowed(needs, roles=roles):
                    return not needs or needs & set(roles.replace(" ", "").split(","))

                self.check(server.channel, (), allowed, (Code.PERMISSION_DENIED, "MISSING_ROLE"), roles)

    def test_no_anonymous_roles_are_none_however_it_is_said(self):
        for roles in ("", " ", "none"):
            with self.subTest(roles), Server("--anonymous-roles", roles) as server:
                refused = (Code.UNAUTHENTICATED, "NO_CREDENTIAL")
                self.check(server.channel, (), lambda needs: not needs, refused, roles)

    def test_callers_of_one_connection_are_told_apart(self):
        known = self.write("principals.json", principals(layers=["uri:spiffe://x/layers"]))
        forwarded = (("x-forwarded-client-cert", "By=spiffe://x/proxy;Hash=0a;URI=spiffe://x/layers"),)
        missing, bad = (Code.PERMISSION_DENIED, "MISSING_ROLE"), (Code.UNAUTHENTICATED, "BAD_CREDENTIAL")
        for proxies in ((), ("--trusted-proxies", "127.0.0.1")):
            callers = {
                (): {"observe"},
                forwarded: {"layers"} if proxies else {"observe"},
                bearer(SECRETS["layers"]): {"layers"},
                bearer("garbage"): set(),
            }
            flags = ("--principals", known, "--anonymous-roles", "observe", *proxies)
            with self.subTest(proxies), Server(*flags) as server:
                for metadata, roles in (*callers.items(), *reversed(callers.items())):
                    def allowed(needs, roles=roles):
                        return not needs or needs & roles

                    self.check(server.channel, metadata, allowed, missing if roles else bad, metadata)

    def test_plaintext_beyond_this_machine_has_to_be_wanted(self):
        for listen in ("0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:0"):
            with self.assertRaisesRegex(RuntimeError, "--insecure"):
                Server("--listen", listen)
        with Server("--listen", "0.0.0.0:0", "--insecure") as server:
            wait_until(lambda: "plaintext beyond this machine" in server.log(), "the log warns of it")

    def test_a_file_that_says_nonsense_stops_the_start(self):
        good = json.loads(principals())["principals"][0]
        twice = {**good, "name": "again"}
        for entries, needle in {
            "no json": "not a JSON object",
            json.dumps({"principals": [good]})[:-1] + ', "principals": []}': "the key 'principals' comes twice",
            "{}": "no list 'principals'",
            json.dumps({"principals": [{**good, "rolls": []}]}): "'rolls'",
            json.dumps({"principals": [{**good, "roles": ["root"]}]}): "'root' is no role",
            json.dumps({"principals": [{**good, "name": ""}]}): "no name",
            json.dumps({"principals": [good, good]}): "given twice",
            json.dumps({"principals": [good, twice]}): "given twice",
            json.dumps({"principals": [{**good, "certificates": ["search.example"]}]}): "no uri:, dns: or cn:",
            json.dumps({"principals": [{**good, "tokens": [{"sha256": "abc"}]}]}): "64 lower-case",
            json.dumps({"principals": [{**good, "tokens": [token("x", expires="soon")]}]}): "expires",
        }.items():
            with self.subTest(needle), self.assertRaisesRegex(RuntimeError, f"--principals: .*{needle}"):
                Server("--principals", self.write("bad.json", entries))

    def test_the_file_is_read_again_and_a_bad_one_is_not(self):
        path = self.write("principals.json", principals())
        flags = ("--principals", path, "--anonymous-roles", "none", "--tls-refresh-interval", "1s")
        with Server(*flags, log_level="info") as server:
            def code(secret):
                return outcome(server.channel, ATTENTION + "GetServerInfo", bearer(secret))[0]
            self.assertEqual(code("new"), Code.UNAUTHENTICATED)
            failures, stop = [], threading.Event()

            def load():
                while not stop.is_set():
                    if code(SECRETS["compute"]) != Code.OK:
                        failures.append(time.monotonic())

            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                jobs = [pool.submit(load) for _ in range(2)]
                self.write("principals.json", "{broken")
                wait_until(lambda: "principals not reloaded" in server.log(), "the broken file is noticed")
                entries = json.loads(principals())
                entries["principals"].append({"name": "n", "roles": ["compute"], "tokens": [token("new")]})
                self.write("principals.json", json.dumps(entries))
                server.hang_up()
                wait_until(lambda: code("new") == Code.OK, "the new token is known")
                stop.set()
                for job in jobs:
                    job.result()
            self.assertEqual(failures, [])
            self.write("principals.json", json.dumps({"principals": []}))
            wait_until(lambda: code(SECRETS["compute"]) == Code.UNAUTHENTICATED, "a token is revoked")

    def test_denials_and_changes_of_layers_are_written_down(self):
        flags = ("--principals", self.write("principals.json", principals()), "--anonymous-roles", "none", "--log-format", "json")
        with Server(*flags, log_level="error") as server:
            outcome(server.channel, LAYERS + "DeleteLayer", bearer(SECRETS["compute"]))
            header = layers_pb.CreateLayerHeader(name="a", init=layers_pb.SeededWeights(embed_dim=4), replace=True)
            for _ in range(2):
                messages = iter([layers_pb.CreateLayerRequest(header=header)])
                layer = server.layers.CreateLayer(messages, metadata=bearer(SECRETS["layers"]), timeout=60).layer
            server.layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="a"), metadata=bearer(SECRETS["layers"]), timeout=60)
            def records():  # The last line may be half-written.
                return [r for r in map(json.loads, server.log().split("\n")[:-1]) if r["message"] == "audit"]
            wait_until(lambda: len(records()) == 4, "four records")
            denied, created, replaced, deleted = records()
            self.assertEqual((denied["event"], denied["principal"], denied["reason"]), ("denied", "compute", "MISSING_ROLE"))
            self.assertEqual(denied["method"], LAYERS + "DeleteLayer")
            for record, event in ((created, "layer created"), (replaced, "layer replaced"), (deleted, "layer deleted")):
                self.assertEqual((record["event"], record["principal"], record["layer"]), (event, "layers", "a"))
                self.assertRegex(record["peer"], r"^ipv4:127\.0\.0\.1:\d+$")
            self.assertEqual((replaced["etag"], deleted["etag"]), (layer.etag, layer.etag))
            for secret in SECRETS.values():
                self.assertNotIn(secret, server.log())


class CertificateTest(AuthTestCase):
    def setUp(self):
        super().setUp()
        self.certificates = Certificates(self.folder)
        for name in ("authority", "stranger"):
            self.certificates.authority(name)
        self.certificates.leaf("server", "authority")
        self.certificates.leaf("compute", "authority", names="URI:spiffe://example/compute")
        self.certificates.leaf("layers", "authority", names="DNS:layers.example")
        self.certificates.leaf("observe", "authority", names="")
        self.certificates.leaf("unknown", "authority")
        self.certificates.leaf("old", "authority", names="URI:spiffe://example/compute", days="-1")
        self.certificates.leaf("foe", "stranger", names="URI:spiffe://example/compute")

    def flags(self, *more):
        files = ("--tls-cert", self.certificates.path("server.crt"), "--tls-key", self.certificates.path("server.key"))
        return (*files, "--tls-client-ca", self.certificates.path("authority.crt"), *more)

    @contextlib.contextmanager
    def channel(self, server, name):
        pair = (self.certificates.text(f"{name}.key"), self.certificates.text(f"{name}.crt")) if name else (None, None)
        credentials = grpc.ssl_channel_credentials(self.certificates.text("authority.crt"), *pair)
        options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", "localhost"))
        with grpc.secure_channel(server.address, credentials, options=options) as channel:
            yield channel

    def test_every_method_with_every_kind_of_certificate(self):
        known = principals(compute=["uri:spiffe://example/compute"], layers=["dns:layers.example"], observe=["cn:observe"])
        flags = self.flags("--principals", self.write("principals.json", known))
        with Server(*flags) as server:
            for role in ROLES:
                def allowed(needs, role=role):
                    return not needs or role in needs

                with self.channel(server, role) as channel:
                    self.check(channel, (), allowed, (Code.PERMISSION_DENIED, "MISSING_ROLE"), role)
                    # A token counts before the certificate.
                    def other(needs):
                        return not needs or "layers" in needs

                    token = bearer(SECRETS["layers"])
                    self.check(channel, token, other, (Code.PERMISSION_DENIED, "MISSING_ROLE"), "layers by token")
            with self.channel(server, "unknown") as channel:
                self.check(channel, (), lambda needs: not needs, (Code.UNAUTHENTICATED, "BAD_CREDENTIAL"), "unknown")
            for name in ("", "foe", "old"):  # No handshake, no call, whatever the method.
                with self.channel(server, name) as channel:
                    self.check(channel, (), lambda needs: False, (Code.UNAVAILABLE, ""), name or "none")

    def test_a_revoked_certificate_makes_no_connection_from_the_next_reload_on(self):
        self.certificates.revoke("authority")
        flags = self.flags("--tls-client-crl", self.certificates.path("authority.crl"), "--tls-refresh-interval", "1s")
        with Server(*flags, log_level="info") as server:
            def code(name):
                with self.channel(server, name) as channel:
                    return outcome(channel, ATTENTION + "GetServerInfo")[0]

            self.assertEqual([code("compute"), code("layers")], [Code.OK, Code.OK])
            self.certificates.revoke("authority", "compute")
            server.hang_up()
            wait_until(lambda: code("compute") == Code.UNAVAILABLE, "the certificate is revoked")
            self.assertEqual(code("layers"), Code.OK)
            self.write("authority.crl", "nothing")
            wait_until(lambda: "TLS files not reloaded" in server.log(), "a file that is no list is noticed")
            self.assertEqual([code("compute"), code("layers")], [Code.UNAVAILABLE, Code.OK], "the last list stays")

    def by_grpc(self, server, name):
        """Whether a new connection's call is served: True, or what came instead."""
        with self.channel(server, name) as channel:
            got = outcome(channel, ATTENTION + "GetServerInfo")
        return got == (Code.OK, "") or got

    def by_http(self, server, name):
        context = ssl.create_default_context(cafile=self.certificates.path("authority.crt"))
        context.load_cert_chain(*(self.certificates.path(f"{name}.{kind}") for kind in ("crt", "key")))
        port = server.http_port
        connect = functools.partial(http.client.HTTPSConnection, "127.0.0.1", port, timeout=PATIENCE, context=context)
        try:
            with Door(port, connect) as door:
                status = door.post("GetServerInfo", b"{}").status
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        return status == 200 or status

    def test_no_handshake_and_no_call_fails_while_authorities_lists_and_principals_are_swapped(self):
        """At both doors, by new connections and by one that stays open, whether the files are good or bad."""
        self.certificates.leaf("server", "authority", "DNS:localhost,IP:127.0.0.1")
        self.certificates.leaf("guest", "stranger", names="URI:spiffe://example/guest")
        path, text = self.certificates.path, self.certificates.text
        own, known = text("authority.crt"), ["uri:spiffe://example/compute", "dns:layers.example"]
        self.certificates.revoke("authority")
        first = {"ca": own, "crl": text("authority.crl"), "known": principals(compute=known).encode()}
        self.certificates.revoke("authority", "layers")
        known.append("uri:spiffe://example/guest")
        both = own + text("stranger.crt")
        second = {"ca": both, "crl": text("authority.crl"), "known": principals(compute=known).encode()}

        def put(**files):  # One after the other, each whole. Whichever are there together fit.
            for name, contents in files.items():
                (self.folder / "next").write_bytes(contents)
                (self.folder / "next").rename(path(name))

        put(**first)
        flags = ("--tls-cert", path("server.crt"), "--tls-key", path("server.key"), "--tls-client-ca", path("ca"),
                 "--tls-client-crl", path("crl"), "--principals", path("known"),
                 "--tls-refresh-interval", "1s")  # fmt: skip
        with Server(*HTTP_DOOR, *flags, log_level="info") as server, self.channel(server, "compute") as held:
            def by_held(server, name):
                got = outcome(held, ATTENTION + "GetServerInfo")
                return got == (Code.OK, "") or got

            def serves(there, gone):
                doors = (self.by_grpc, self.by_http)
                return all(ask(server, there) is True and ask(server, gone) is not True for ask in doors)

            asks = (by_held, self.by_grpc, self.by_http)
            # All keys from the start: a new one would fail who counts meanwhile.
            asked, failures, stop = collections.Counter({ask.__name__: 0 for ask in asks}), [], threading.Event()

            def load(ask):
                while not stop.is_set():
                    if (got := ask(server, "compute")) is not True:
                        failures.append((ask.__name__, got))
                    asked[ask.__name__] += 1

            self.assertTrue(serves("layers", "guest"))
            with concurrent.futures.ThreadPoolExecutor(3) as pool, contextlib.ExitStack() as end:
                end.callback(stop.set)
                jobs = [pool.submit(load, ask) for ask in asks]
                for files, there, gone in 2 * ((second, "guest", "layers"), (first, "layers", "guest")):
                    before = dict(asked)
                    put(**files)
                    server.hang_up()
                    wait_until(lambda there=there, gone=gone: serves(there, gone), f"{there} is served, {gone} is not")
                    wait_until(lambda before=before: len(asked - collections.Counter(before)) == 3, "all go on")
                for name, what in (("ca", "TLS files"), ("crl", "TLS files"), ("known", "principals")):
                    line = f"{what} not reloaded"
                    seen = server.log().count(line)
                    put(**{name: b"nothing"})
                    server.hang_up()
                    wait_until(lambda line=line, seen=seen: server.log().count(line) > seen, f"{name} is noticed")
                    self.assertTrue(serves("layers", "guest"), "the last good files stay in force")
                    put(**first)
                end.close()
                for job in jobs:
                    job.result()
        self.assertEqual(failures, [])

    def test_a_list_of_revoked_certificates_that_is_none_is_refused(self):
        self.certificates.revoke("authority")
        self.certificates.revoke("stranger")
        path = self.certificates.path
        for crl, needle in {"stranger.crl": "no authority of --tls-client-ca signed", "authority.crt": "no list"}.items():
            with self.subTest(crl), self.assertRaisesRegex(RuntimeError, f"--tls-client-crl: '.*{crl}' .*{needle}"):
                Server(*self.flags("--tls-client-crl", path(crl)))
        with self.assertRaisesRegex(RuntimeError, "--tls-client-crl needs --tls-client-ca"):
            Server("--tls-cert", path("server.crt"), "--tls-key", path("server.key"), "--tls-client-crl", path("authority.crl"))

    def test_anonymous_roles_that_nobody_could_have_are_refused(self):
        for roles in ("compute", "layers,observe"):
            with self.subTest(roles), self.assertRaisesRegex(RuntimeError, "--anonymous-roles: with --tls-client-ca"):
                Server(*self.flags("--anonymous-roles", roles))

    def test_without_a_file_every_verified_certificate_may_do_everything(self):
        with Server(*self.flags("--anonymous-roles", "none")) as server, self.channel(server, "unknown") as channel:
            self.check(channel, (), lambda needs: True, None, "any certificate")


if __name__ == "__main__":
    unittest.main()
