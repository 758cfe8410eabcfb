"""A bearer token of `attend`: who it says is calling, where it goes, and that nobody else reads it."""

import hashlib
import json
import os
import pathlib
import tempfile
import threading
import unittest

from attend_testing.certificates import Certificates
from attend_testing.load import wait_until
from attend_testing.server import SOURCE_DIR, Server
from cli_harness import GOLDEN, attend

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"
DATA = SOURCE_DIR / "examples" / "data"
SECRETS = {name: f"{name}-{'secret' * 5}" for name in ("everything", "compute")}
ROLES = {"everything": ["compute", "layers", "observe"], "compute": ["compute"]}
X = ("--input", f"{NOTEBOOK}:x")


def principals():
    return json.dumps({"principals": [
        {"name": name, "roles": ROLES[name], "tokens": [{"sha256": hashlib.sha256(secret.encode()).hexdigest()}]}
        for name, secret in SECRETS.items()
    ]})  # fmt: skip


class TokenCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="attend-token-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        for name, secret in SECRETS.items():
            cls.write(name, secret + "\n")
        cls.demands = ("--principals", str(cls.write("principals.json", principals())), "--anonymous-roles", "none")

    @classmethod
    def write(cls, name, text):
        path = cls.folder / name
        path.write_bytes(text.encode())
        return path

    @classmethod
    def start(cls, *flags, **keywords):
        server = Server(*cls.demands, *flags, **keywords)
        cls.addClassCleanup(server.stop)
        return server

    def run_attend(self, *arguments, code=0, env=None, stdin=b""):
        """No token may be in what is printed, whatever comes of it."""
        run = attend(*arguments, env={"ATTEND_ENDPOINTS": self.server.address, **(env or {})}, stdin=stdin)
        self.assertEqual(run.code, code, run.err)
        for secret in SECRETS.values():
            self.assertNotIn(secret, run.text + run.err)
        return run


class CallsTest(TokenCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.start("--layer", "notebook=init:42:64", log_level="debug")

    def test_every_command_sends_it(self):
        token = ("--token-file", self.folder / "everything")
        qkv = ("--query", DATA / "q.npy", "--key", DATA / "k.npy", "--value", DATA / "v.npy")
        for command in (["compute", *X], ["compute", *X, "--estimate"], ["compute", *X, "--layer", "notebook"], ["sdpa", *qkv], ["info"],
                        ["health"], ["layers", "upload", "mine", NOTEBOOK], ["layers", "list"], ["layers", "get", "mine"],
                        ["layers", "upload", "seeded", "--init", "1:8"], ["layers", "delete", "mine"]):
            with self.subTest(command):
                self.run_attend(*command, *token)
        answer = json.loads(self.run_attend("batch", *token, stdin=b'{"embeddings": [[1, 0], [0, 1]]}\n').text)
        self.assertIn("output", answer["tensors"])

    def test_without_one_a_server_that_demands_it_says_so(self):
        run = self.run_attend("compute", *X, code=3)
        self.assertIn("the server does not know who calls: this server wants a bearer token", run.err)
        self.assertIn("give a token with --token-file", run.err)
        self.run_attend("health")

    def test_another_one_and_one_without_the_role_are_refused(self):
        wrong = self.write("wrong", "wrong" * 8)
        run = self.run_attend("info", "--token-file", wrong, code=3)
        self.assertIn("BAD_CREDENTIAL", run.err)
        self.assertNotIn("wrongwrong", run.err)
        run = self.run_attend("layers", "list", "--token-file", self.folder / "compute", code=3)
        self.assertIn("the principal 'compute' needs one of these roles", run.err)

    def test_the_environment_gives_it_too_and_a_file_goes_before_it(self):
        for env in ({"ATTEND_TOKEN": SECRETS["compute"]}, {"ATTEND_TOKEN_FILE": str(self.folder / "compute")},
                    {"ATTEND_TOKEN": "wrong", "ATTEND_TOKEN_FILE": str(self.folder / "compute")}):
            self.run_attend("info", env=env)
            self.run_attend("layers", "list", env=env, code=3)
            self.run_attend("layers", "list", "--token-file", self.folder / "everything", env=env)
        self.run_attend("info", env={"ATTEND_TOKEN": ""}, code=3)

    def test_a_pipe_is_a_file(self):
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_text(SECRETS["compute"]))
        writer.start()
        self.addCleanup(writer.join)
        self.run_attend("info", "--token-file", pipe)

    def test_files_without_a_token_send_nothing(self):
        for contents, said in (("", "holds no token"), (" \n", "holds no token"), ("two words\n", "the token has a blank"),
                               ("a\x01b", "the token has a blank or a character"), ("ü", "not printable ASCII"), ("a" * 9000, "is larger")):
            path = self.write("odd", contents)
            run = self.run_attend("info", "--token-file", path, code=2)
            self.assertIn(f"attend: --token-file: {path}", run.err)
            self.assertIn(said, run.err)
            self.assertEqual(run.err.count("\n"), 1)
        self.assertIn("--token-file: cannot open /no/token", self.run_attend("info", "--token-file", "/no/token", code=2).err)
        self.assertIn("ATTEND_TOKEN: the token has a blank", self.run_attend("info", env={"ATTEND_TOKEN": "a b"}, code=2).err)

    def test_no_flag_takes_the_token_itself(self):
        run = self.run_attend("info", "--token", "x", code=2)
        self.assertIn("did you mean --token-file?", run.err)

    def test_the_nearest_layer_is_asked_for_with_it(self):
        run = self.run_attend("layers", "get", "notbook", "--token-file", self.folder / "everything", code=3)
        self.assertIn("did you mean notebook?", run.err)

    def test_the_servers_log_has_calls_and_no_token(self):
        self.run_attend("info", "--token-file", self.folder / "compute")
        wait_until(lambda: "GetServerInfo" in self.server.log(), "the call is logged")
        log = self.server.log()
        for secret in SECRETS.values():
            self.assertNotIn(secret, log)

    def test_a_demo_has_a_server_of_its_own_which_knows_no_token(self):
        self.run_attend("demo", env={"ATTEND_TOKEN": SECRETS["compute"]})


class PlaintextTest(TokenCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.start("--listen", "unix:" + str(cls.folder / "socket"))
        cls.token = ("--token-file", cls.folder / "compute")

    def test_what_stays_on_this_machine_is_sent(self):
        for endpoint in (self.server.address, f"localhost:{self.server.port}", f"dns:///localhost:{self.server.port}",
                         f"ipv4:127.0.0.1:{self.server.port}", f"unix:{self.folder}/socket", f"127.0.0.1:{self.server.port},localhost:1"):
            with self.subTest(endpoint):
                self.run_attend("info", *self.token, "--endpoints", endpoint)

    def test_what_may_not_is_refused_before_anything_is_sent(self):
        """Linux takes 0.0.0.0 for this machine; attend does not know that."""
        elsewhere = f"0.0.0.0:{self.server.port}"
        for endpoint in (elsewhere, f"{self.server.address},{elsewhere}", "dns:///attend.invalid:1", "attend.invalid", "ipv4:10.0.0.1:1"):
            for give in ({"env": {"ATTEND_TOKEN": SECRETS["compute"]}}, {"env": {"ATTEND_TOKEN_FILE": str(self.token[1])}}):
                run = self.run_attend("info", "--endpoints", endpoint, code=2, **give)
                self.assertIn(f"the token is not sent in plaintext to {endpoint}, which may be another machine; give --tls", run.err)
        self.run_attend("info", *self.token, "--endpoints", elsewhere, "--insecure")
        self.run_attend("info", *self.token, "--endpoints", elsewhere, env={"ATTEND_CLIENT_INSECURE": "true"})
        run = self.run_attend("info", *self.token, "--endpoints", elsewhere, env={"ATTEND_INSECURE": "true"}, code=2)
        self.assertIn("--insecure", run.err, "ATTEND_INSECURE is the server's")
        self.assertIn("this server wants a bearer token", self.run_attend("info", "--endpoints", elsewhere, code=3).err)

    def test_over_tls_it_goes_anywhere(self):
        certificates = Certificates(self.folder)
        certificates.authority("ca")
        certificates.leaf("server", "ca", "IP:0.0.0.0")
        with Server(*self.demands, "--tls-cert", certificates.path("server.crt"), "--tls-key", certificates.path("server.key")) as server:
            there = ("--endpoints", f"0.0.0.0:{server.port}", "--tls-ca", certificates.path("ca.crt"))
            self.run_attend("info", *self.token, *there)
            self.assertIn("this server wants a bearer token", self.run_attend("info", *there, code=3).err)


if __name__ == "__main__":
    unittest.main()
