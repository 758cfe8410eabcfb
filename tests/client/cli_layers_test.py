"""`attend layers` and `attend compute` with a layer by name, against a server that answers what a test tells it to."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import threading
import unittest

import grpc
import numpy as np

import cli_harness
from attend_testing.stubs import layers_grpc, layers_pb, pb, pb_grpc, tensor_pb2
from attend_testing.tensors import to_tensor
from cli_harness import GOLDEN, CliTestCase, attend, attend_on_terminal, npy_array, write_safetensors

NOTEBOOK = GOLDEN / "notebook_5x64.safetensors"
CONFIG = layers_pb.LayerConfig(
    num_heads=8,
    num_kv_heads=2,
    rotary_embedding=layers_pb.RotaryEmbedding(form=layers_pb.ROTARY_FORM_INTERLEAVED, base=500000.0),
    options=pb.AttentionOptions(causal=pb.CAUSAL_MODE_BOTTOM_RIGHT, sliding_window_left=4095),
)


def layer(name, **fields):
    values = dict(
        name=name, etag="e1", config=CONFIG, embed_dim=64, context_dim=64, head_dim=8, value_dim=8, output_dim=64,
        has_output_projection=True, weight_types=[tensor_pb2.DATA_TYPE_BFLOAT16], weight_bytes=1 << 20, memory_bytes=3 << 20,
        origin="upload",
        create_time_ms=1_700_000_000_000, naming="llama",
    )  # fmt: skip
    return layers_pb.Layer(**{**values, **fields})


class Fake(layers_grpc.LayerServiceServicer, pb_grpc.AttentionServiceServicer):
    """Keeps what it is sent, and refuses with `refusal`, a code and a sentence, where there is one."""

    def __init__(self):
        self.layers, self.headers, self.uploads, self.requests = [], [], [], []
        self.refusal, self.trailers, self.hold = None, (), None

    def _refuse(self, context):
        context.set_trailing_metadata(self.trailers)
        if self.refusal:
            context.abort(*self.refusal)

    def CreateLayer(self, request_iterator, context):
        self.headers.append(next(request_iterator).header)
        self._refuse(context)
        self.uploads.append(b"".join(message.chunk for message in request_iterator))
        if self.hold:
            self.hold.wait(60)
        return layers_pb.CreateLayerResponse(layer=layer(self.headers[-1].name))

    def GetLayer(self, request, context):
        self._refuse(context)
        return layers_pb.GetLayerResponse(layer=layer(request.name))

    def ListLayers(self, request, context):
        self._refuse(context)
        found = [one for one in self.layers if one.name.startswith(request.name_prefix)]
        start = int(request.page_token or 0)
        more = str(start + 2) if start + 2 < len(found) else ""
        return layers_pb.ListLayersResponse(layers=found[start : start + 2], next_page_token=more)

    def DeleteLayer(self, request, context):
        self._refuse(context)
        self.requests.append(request)
        return layers_pb.DeleteLayerResponse()

    def Attend(self, request, context):
        self._refuse(context)
        self.requests.append(request)
        return pb.AttendResponse(output=request.embeddings)


class LayersCase(unittest.TestCase):
    def setUp(self):
        self.fake = Fake()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        layers_grpc.add_LayerServiceServicer_to_server(self.fake, self.server)
        pb_grpc.add_AttentionServiceServicer_to_server(self.fake, self.server)
        self.env = {"ATTEND_ENDPOINTS": f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"}
        self.server.start()
        self.addCleanup(lambda: self.server.stop(None).wait())
        directory = tempfile.TemporaryDirectory(prefix="attend-cli-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def attend(self, *arguments, code=0, **keywords):
        run = attend(*arguments, env=self.env, **keywords)
        self.assertEqual(run.code, code, run.err)
        return run

    def fails(self, *arguments, code=2):
        run = self.attend(*arguments, code=code)
        self.assertEqual(run.out, b"")
        return run.err

    def file(self, size, name="w.safetensors"):
        path = self.directory / name
        path.write_bytes(np.random.default_rng(1).bytes(size))
        return path


class ListGetDeleteTest(LayersCase):
    def test_a_list_has_all_pages(self):
        self.fake.layers = [layer(name) for name in ("a", "minilm/0", "minilm/1", "minilm/10", "z")]
        run = self.attend("layers", "list")
        self.assertEqual([line.split()[0] for line in run.text.splitlines()], ["NAME", "a", "minilm/0", "minilm/1", "minilm/10", "z"])
        self.assertRegex(run.text, r"minilm/10  64 -> 64  8/2    bfloat16  3 MiB   llama   upload\n")
        run = self.attend("layers", "list", "--prefix", "minilm/", "-o", "json")
        self.assertEqual([one["name"] for one in json.loads(run.text)["layers"]], ["minilm/0", "minilm/1", "minilm/10"])

    def test_an_empty_list(self):
        self.assertEqual(len(self.attend("layers", "list").text.splitlines()), 1)
        self.assertEqual(json.loads(self.attend("layers", "list", "-o", "json").text), {"layers": []})

    def test_get_says_everything_about_a_layer(self):
        answer = json.loads(self.attend("layers", "get", "minilm/0", "-o", "json").text)
        fields = {field.name for field in layers_pb.Layer.DESCRIPTOR.fields}
        self.assertEqual(set(answer), fields)
        self.assertEqual((answer["weight_bytes"], answer["weight_types"], answer["read_only"]), (1 << 20, ["bfloat16"], False))
        self.assertEqual(answer["config"]["rotary_embedding"], {"form": "ROTARY_FORM_INTERLEAVED", "base": 500000})
        table = self.attend("layers", "get", "minilm/0").text
        for line in ("name +minilm/0", "etag +e1", "shape +64 -> 64", "heads +8/2 of 8, values of 8",
                     "has +output projection, rotary embedding", "created +2023-11-14 22:13:20 UTC"):
            self.assertRegex(table, re.compile(f"^{line}$", re.MULTILINE))

    def test_delete(self):
        self.assertEqual(self.attend("layers", "delete", "minilm/0", "--etag", "e1").text, "deleted minilm/0\n")
        self.assertEqual(self.fake.requests, [layers_pb.DeleteLayerRequest(name="minilm/0", etag="e1")])
        run = self.attend("layers", "delete", "minilm/0", "-o", "json")
        self.assertEqual(json.loads(run.text), {"name": "minilm/0", "deleted": True})

    def test_refusals_end_with_3_and_the_servers_words(self):
        self.fake.refusal = (grpc.StatusCode.NOT_FOUND, "there is no layer 'x'")
        for command in (["list"], ["get", "x"], ["delete", "x"], ["upload", "x", self.file(8)], ["upload", "x", "--init", "1:8"]):
            self.assertIn("the server does not find it: there is no layer 'x'", self.fails("layers", *command, code=3))

    def test_help_and_unknown_commands(self):
        for command in ([], ["list"], ["get"], ["upload"], ["delete"]):
            self.assertIn("ATTEND_ENDPOINTS", self.attend("layers", *command, "--help").text)
        said = "attend: there is no command 'frobnicate' of attend layers; there are list, get, upload, check, delete"
        self.assertIn(said, self.fails("layers", "frobnicate"))
        self.assertIn("a command of attend layers is missing: list, get, upload, check, delete", self.fails("layers"))
        self.assertIn("attend layers get needs a NAME", self.fails("layers", "get"))


class UploadTest(LayersCase):
    def test_a_file_and_what_it_is_to_become(self):
        path = self.file((5 << 20) + 3)
        run = self.attend("layers", "upload", "minilm/0", path, "--prefix", "encoder.layer.0.", "--num-heads", 12, "--replace", "--etag",
                          "e7", "-o", "json")
        self.assertEqual(json.loads(run.text)["name"], "minilm/0")
        self.assertEqual(self.fake.uploads, [path.read_bytes()])
        self.assertEqual(
            self.fake.headers,
            [layers_pb.CreateLayerHeader(name="minilm/0", prefix="encoder.layer.0.", config=layers_pb.LayerConfig(num_heads=12),
                                         replace=True, etag="e7")],
        )
        self.assertEqual(run.err, "", "no progress without a terminal")

    def test_what_get_calls_config_can_be_uploaded(self):
        config = self.directory / "config.json"
        config.write_text(json.dumps(json.loads(self.attend("layers", "get", "a", "-o", "json").text)["config"]))
        self.attend("layers", "upload", "b", self.file(8), "--config", config)
        self.assertEqual(self.fake.headers[-1].config, CONFIG)
        self.attend("layers", "upload", "b", self.file(8), "--config", config, "--heads", 4, "--kv-heads", 4)
        self.assertEqual((self.fake.headers[-1].config.num_heads, self.fake.headers[-1].config.num_kv_heads), (4, 4))
        self.assertTrue(self.fake.headers[-1].config.HasField("rotary_embedding"))

    def test_seeded_weights(self):
        self.attend("layers", "upload", "seeded", "--init", "-1:96")
        self.assertEqual(self.fake.headers[-1].init, layers_pb.SeededWeights(seed=-1, embed_dim=96))
        self.assertEqual(self.fake.uploads, [b""])

    def test_sha256(self):
        path = self.file(3_000_000)
        self.attend("layers", "upload", "a", path, "--sha256", "auto")
        self.assertEqual(self.fake.headers[-1].sha256, hashlib.sha256(path.read_bytes()).hexdigest())
        self.attend("layers", "upload", "a", path, "--sha256", "ab" * 32)
        self.assertEqual(self.fake.headers[-1].sha256, "ab" * 32)
        self.attend("layers", "upload", "a", path, "--sha256", "AB" * 32)  # As PowerShell's Get-FileHash prints it.
        self.assertEqual(self.fake.headers[-1].sha256, "ab" * 32)

    def test_a_file_of_another_format_is_not_sent(self):
        array = self.directory / "x.npy"
        np.save(array, np.zeros((5, 64), np.float32))
        said = self.fails("layers", "upload", "a", array)
        self.assertIn(f"attend: {array}: expected a .safetensors file, and this is a NumPy array (.npy)", said)
        index = self.directory / "model.safetensors.index.json"
        index.write_text('{"weight_map": {}}')
        self.assertIn("take the shard that has the layer", self.fails("layers", "upload", "a", index))
        self.assertEqual(self.fake.headers, [])

    def test_a_pipe_is_sent_from_its_first_byte(self):
        pipe, sent = self.directory / "pipe", os.urandom(100_000)
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda: pipe.write_bytes(sent))
        writer.start()
        self.addCleanup(writer.join)
        self.attend("layers", "upload", "a", pipe)
        self.attend("layers", "upload", "a", self.file(5))
        self.assertEqual(self.fake.uploads, [sent, self.file(5).read_bytes()])

    def test_a_pipe_has_no_digest_before_it_is_sent(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        os.write(writing, b"weights")
        os.close(writing)
        command = [cli_harness.ATTEND, "layers", "upload", "a", f"/dev/fd/{reading}", "--sha256", "auto"]
        run = subprocess.run(command, pass_fds=[reading], env=cli_harness.environment(self.env), capture_output=True,
                             timeout=cli_harness.PATIENCE, check=False)  # fmt: skip
        why = f"--sha256 auto reads the file before it is sent, and /dev/fd/{reading} can be read only once; give the digits"
        self.assertEqual((run.returncode, run.stderr.decode()), (2, f"attend: {why}\n"))
        self.assertEqual(self.fake.headers, [])

    def test_wrong_flags_and_files_send_nothing(self):
        path, config = self.file(8), self.directory / "c.json"
        config.write_text('{"num_headz": 3}')
        cases = (
            (["a"], "FILE.safetensors or --init"),
            (["a", path, "--init", "1:8"], "one of them"),
            (["a", "/no/such.safetensors"], "/no/such.safetensors"),
            (["a", path, "--etag", "e1"], "--replace"),
            (["a", "--init", "1:8", "--prefix", "x."], "--prefix"),
            (["a", "--init", "1:8", "--sha256", "auto"], "--sha256"),
            (["a", "--init", "1"], "expected SEED:DIM"),
            (["a", "--init", "1:2:3"], "expected SEED:DIM"),
            (["a", path, "--config", config], "num_headz"),
            (["a", path, "--config", "/no/such.json"], "/no/such.json"),
            (["a", path, "--num-heads", "many"], "--num-heads"),
        )
        for arguments, needle in cases:
            with self.subTest(" ".join(map(str, arguments))):
                self.assertIn(needle, self.fails("layers", "upload", *arguments))
        self.assertEqual(self.fake.headers, [])

    def test_an_early_refusal_is_what_the_user_reads(self):
        self.fake.refusal = (grpc.StatusCode.ALREADY_EXISTS, "there is a layer 'a'; set replace")
        said = self.fails("layers", "upload", "a", self.file(64 << 20), code=3)
        self.assertIn("the server has it already: there is a layer 'a'; set replace", said)

    def test_a_terminal_shows_how_far_it_is(self):
        self.fake.hold = threading.Event()
        run = attend_on_terminal("layers", "upload", "a", self.file(3 << 20), env={**self.env, "TERM": "xterm"},
                                 once=("100 %", self.fake.hold.set))
        self.assertEqual(run.code, 0, run.out)
        self.assertIn(b"a [####################] 100 %  waiting for the server", run.out)
        self.assertRegex(run.out.rsplit(b"\x1b[K", 1)[1], rb"^name +a\n")


class ComputeTest(LayersCase):
    def setUp(self):
        super().setUp()
        self.x = np.arange(6, dtype=np.float32).reshape(2, 3)
        np.save(self.directory / "x.npy", self.x)
        self.input = ("--input", self.directory / "x.npy")

    def test_a_name_in_place_of_a_file(self):
        for flag, name in (("--layer", "minilm/0"), ("--layer-name", "minilm/0"), ("--layer-name", "odd.safetensors")):
            run = self.attend("compute", *self.input, flag, name, "--causal", "-o", "npy")
            np.testing.assert_array_equal(npy_array(run.out), self.x)
            options = pb.AttentionOptions(causal=pb.CAUSAL_MODE_BOTTOM_RIGHT)
            self.assertEqual(
                self.fake.requests.pop(),
                pb.AttendRequest(embeddings=to_tensor(self.x), layer_name=name, options=options, outputs=[pb.OUTPUT_KIND_OUTPUT]),
            )

    def test_no_causal_mask_in_place_of_the_layers(self):
        self.attend("compute", *self.input, "--layer", "llama/0", "--causal-none")
        self.assertEqual(self.fake.requests[0].options, pb.AttentionOptions(causal=pb.CAUSAL_MODE_NONE))

    def test_the_position_of_the_first_token(self):
        self.attend("compute", *self.input, "--layer", "llama/0", "--position-offset", 1 << 40)
        self.assertEqual(self.fake.requests[0].position_offset, 1 << 40)

    def test_a_deadline_that_the_server_finds_too_short_is_its_refusal(self):
        self.fake.refusal = (grpc.StatusCode.DEADLINE_EXCEEDED, "this would take longer")
        self.fake.trailers = (("server-timing", "receive;dur=1.0, queue;dur=2.0, compute;dur=3.0, send;dur=4.0"),)
        self.assertIn("this would take longer", self.fails("compute", *self.input, code=3))

    def test_a_folder_is_no_file(self):
        self.attend("compute", *self.input, "--layer", self.directory)
        self.assertEqual(self.fake.requests[0].layer_name, str(self.directory))

    def test_a_file_is_still_a_file(self):
        self.attend("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK)
        self.assertEqual((self.fake.requests[0].layer_name, self.fake.requests[0].HasField("layer")), ("", True))
        self.assertIn("is no .safetensors; a layer in the server is called with --layer-name",
                      self.fails("compute", *self.input, "--layer", self.directory / "x.npy"))

    def test_what_a_named_layer_cannot_have(self):
        cases = (
            (["--layer", "minilm/0", "--num-heads", 2], "'minilm/0' has its heads in the server"),
            (["--layer", "minilm/0", "--layer-name", "minilm/0"], "exclude each other"),
            (["--position-offset", 3], "--layer-name"),
            (["--layer", NOTEBOOK, "--position-offset", 3], "--layer-name"),
            (["--position-offsets", "3"], "--layer-name"),
            (["--layer-etag", "0123"], "--layer-name"),
        )
        for arguments, needle in cases:
            with self.subTest(" ".join(map(str, arguments))):
                self.assertIn(needle, self.fails("compute", *self.input, *arguments))
        self.assertEqual(self.fake.requests, [])


class RealServerTest(CliTestCase):
    """The whole way, with a server that keeps what it is given."""

    def named(self, name, *flags):
        return self.attend_npz("compute", "--input", f"{NOTEBOOK}:x", "--layer", name, *flags).arrays[0]

    def test_a_layer_is_uploaded_called_replaced_and_deleted(self):
        name = "cli/notebook"
        self.attend_ok("layers", "upload", name, NOTEBOOK, "--sha256", "auto")
        from_file = self.attend_npz("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK).arrays[0]
        np.testing.assert_array_equal(self.named(name), from_file)
        self.comparisons("compute", "--input", f"{NOTEBOOK}:x", "--layer", name, "--expect", f"{NOTEBOOK}:output_f64")
        one = json.loads(self.attend_ok("layers", "get", name, "-o", "json").text)
        self.assertEqual((one["name"], one["embed_dim"], one["naming"], one["origin"], one["read_only"]),
                         (name, 64, "notebook", "upload", False))
        self.assertEqual(one["sha256"], hashlib.sha256(NOTEBOOK.read_bytes()).hexdigest())
        self.assertIn(name, self.attend_ok("layers", "list", "--prefix", "cli/").text)

        upload = ("layers", "upload", name, NOTEBOOK)
        other_version = ("the server has another version", "attend layers get NAME shows the present one")
        self.assert_fails(self.attend(*upload), 3, "the server has a layer .* already; give --replace to put this one in its place")
        self.assert_fails(self.attend(*upload, "--replace", "--etag", "nonsense"), 3, *other_version)
        self.assert_fails(self.attend(*upload, "--replace", "--sha256", "0" * 64), 3, "the bytes did not arrive as they were sent")
        self.attend_ok(*upload, "--replace", "--etag", one["etag"], "--num-heads", 4)
        self.assertFalse(np.array_equal(self.named(name), from_file), "four heads are another layer")
        unnamed = self.attend_npz("compute", "--input", f"{NOTEBOOK}:x", "--layer", NOTEBOOK, "--num-heads", 4)
        np.testing.assert_array_equal(self.named(name), unnamed.arrays[0])

        self.assert_fails(self.attend("layers", "delete", name, "--etag", one["etag"]), 3, *other_version)
        self.attend_ok("layers", "delete", name)
        self.assert_fails(self.attend("layers", "get", name), 3, "the server has no layer")
        self.assert_fails(self.attend("compute", "--input", f"{NOTEBOOK}:x", "--layer", name), 3, "the server has no layer")

    def test_seeded_weights_are_those_of_pytorch(self):
        file = GOLDEN / "init_seed42_64.safetensors"
        self.attend_ok("layers", "upload", "cli/seeded", "--init", "42:64")
        from_file = self.attend_npz("compute", "--input", f"{NOTEBOOK}:x", "--layer", file).arrays[0]
        np.testing.assert_array_equal(self.named("cli/seeded"), from_file)

    def test_a_configuration_that_is_refused_names_its_field(self):
        for config, field in (({"num_heads": 3}, "config.num_heads"), ({"rotary_embedding": {"dim": 3}}, "config.rotary_embedding.dim")):
            path = self.directory / "c.json"
            path.write_text(json.dumps(config))
            run = self.attend("layers", "upload", "cli/bad", NOTEBOOK, "--config", path)
            self.assert_fails(run, 3, "the server refuses ", field)
        self.assert_fails(self.attend("layers", "upload", "cli/bad", NOTEBOOK, "--prefix", "encoder."), 3, "looked for")
        self.assert_fails(self.attend("layers", "upload", "../bad", NOTEBOOK), 3, "the server refuses ")

    def test_what_the_config_json_beside_a_file_says_goes_with_it(self):
        folder = self.directory / "llama"
        folder.mkdir()
        file, model = folder / "model.safetensors", folder / "config.json"
        names = [f"self_attn.{one}_proj.weight" for one in "qkvo"]
        write_safetensors(file, {name: self.random(16, 16) for name in names})
        says = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 4, "rope_theta": 100}
        model.write_text(json.dumps(says))
        self.attend_ok("layers", "upload", "cli/beside", file)
        uploaded = json.loads(self.attend_ok("layers", "get", "cli/beside", "-o", "json").out)["config"]
        self.assertEqual((uploaded["num_heads"], uploaded["rotary_embedding"]["base"]), (4, 100))
        self.assertEqual(uploaded["options"]["causal"], "CAUSAL_MODE_BOTTOM_RIGHT")
        model.write_text(json.dumps({**says, "model_type": "nobody"}))
        unknown = ("layers", "upload", "cli/unknown", file, "--num-heads", 4)
        self.assert_fails(self.attend(*unknown), 2, "nobody", "--ignore-config-json")
        self.attend_ok(*unknown, "--ignore-config-json")
        model.write_text(json.dumps({"num_heads": 2}))
        self.attend_ok("layers", "upload", "cli/own", file, "--config", model)

    def test_positions(self):
        path = self.directory / "c.json"
        path.write_text('{"rotary_embedding": {"base": 100}}')
        self.attend_ok("layers", "upload", "cli/rotary", NOTEBOOK, "--config", path)
        keys = [self.named("cli/rotary", "--return", "key", "--position-offset", offset) for offset in (0, 1)]
        self.assertFalse(np.allclose(keys[0], keys[1]))

    def test_positions_of_each_sequence(self):
        path = self.directory / "c.json"
        path.write_text('{"rotary_embedding": {"base": 100}}')
        self.attend_ok("layers", "upload", "cli/rotary/each", NOTEBOOK, "--config", path)
        x = self.random(2, 5, 64)
        flags = ["--layer-name", "cli/rotary/each", "--return", "key"]
        both = self.attend_npz("compute", "--input", self.save("both.npy", x), *flags, "--position-offsets", "0,7").arrays[0]
        for b, offset in enumerate((0, 7)):
            one = ["compute", "--input", self.save("one.npy", x[b : b + 1]), *flags, "--position-offset", offset]
            np.testing.assert_array_equal(both[b : b + 1], self.attend_npz(*one).arrays[0])

    def test_what_nothing_says_is_noted(self):
        self.attend_ok("layers", "upload", "cli/noted", NOTEBOOK)
        answer = json.loads(self.attend_ok("layers", "get", "cli/noted", "-o", "json").out)
        self.assertEqual(answer["notes"], ["not causal, no rotary embedding (assumed: nothing says otherwise)"])


if __name__ == "__main__":
    unittest.main()
