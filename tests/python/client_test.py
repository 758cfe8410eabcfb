"""The Python package against a real server: results have the bits of a plain gRPC call, in the caller's kind of array."""

import asyncio
import tempfile
import unittest

import attend
import attend.aio
import grpc
import numpy as np

from attend_testing import safetensors
from attend_testing.admin import Scrape
from attend_testing.certificates import Certificates
from attend_testing.server import SOURCE_DIR, Server, ServerTestCase
from attend_testing.stubs import health_pb2, health_pb2_grpc, pb
from attend_testing.tensors import assert_near, assert_same_bits, from_tensor, to_tensor

NOTEBOOK = SOURCE_DIR / "tests" / "data" / "golden" / "notebook_5x64.safetensors"
TENSORS = [name.removeprefix("OUTPUT_KIND_").lower() for name, number in pb.OutputKind.items() if number] + ["top_attention_indices"]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class ClientTestCase(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = attend.Client(cls.server.address)
        cls.addClassCleanup(cls.client.close)

    def assert_result(self, result, response):
        """Every tensor of the response is in the result, with the same bits, and nothing else."""
        given = {field.name for field, _ in response.ListFields()}
        for name in TENSORS:
            actual = getattr(result, name)
            if name not in given:
                self.assertIsNone(actual, name)
            else:
                assert_same_bits(actual, from_tensor(getattr(response, name)), name)
        self.assertEqual(tuple(result.receipt), (response.receipt.server_version, response.receipt.kernel, response.receipt.layer_etag))


class NotebookTest(ClientTestCase):
    def setUp(self):
        self.golden, _ = safetensors.load(NOTEBOOK)
        self.tolerance = 2e-6 * np.abs(self.golden["x"]).max() + 1e-6

    def assert_notebook(self, result):
        assert_near(result.output, self.golden["output_f64"], self.tolerance, "output")
        assert_near(result.attention_weights, self.golden["attention_weights_f64"], 3e-6, "weights")

    def test_by_name_and_by_weights(self):
        weights = {name: array for name, array in self.golden.items() if name.endswith((".weight", ".bias"))}
        x, outputs = self.golden["x"], ["output", "attention_weights"]
        self.client.layers.create("uploaded", weights, replace=True)
        self.client.layers.create("from-file", NOTEBOOK, replace=True)
        self.client.layers.create("from-bytes", NOTEBOOK.read_bytes(), replace=True)
        inline = self.client.attend(x, layer=weights, outputs=outputs)
        self.assert_notebook(inline)
        for name in ("uploaded", "from-file", "from-bytes"):
            with self.subTest(name):
                result = self.client.attend(x, layer=name, outputs=outputs)
                assert_same_bits(result.output, inline.output, name)
                self.assertEqual(result.receipt.layer_etag, self.client.layers.get(name).etag)

    def test_a_seed_gives_torchs_weights(self):
        weights, _ = safetensors.load(NOTEBOOK.with_name("init_seed42_64.safetensors"))
        self.client.layers.create("seeded", init=(42, 64), replace=True)
        x = self.golden["x"]
        assert_same_bits(self.client.attend(x, layer="seeded").output, self.client.attend(x, layer=weights).output, "output")

    def test_asynchronously(self):
        async def main():
            async with attend.aio.Client(self.server.address) as client:
                await client.layers.create("async", NOTEBOOK, replace=True)
                names = [layer.name for layer in await client.layers.list("asy")]
                result = await client.attend(self.golden["x"], layer="async", outputs=["output", "attention_weights"])
                estimate = await client.estimate(attend.requests.attend(self.golden["x"]))
                await client.layers.delete("async")
                return result, names, estimate, (await client.info()).version

        result, names, estimate, version = asyncio.run(main())
        self.assert_notebook(result)
        self.assertEqual(names, ["async"])
        self.assertTrue(estimate.admissible)
        self.assertEqual(version, result.receipt.server_version)


class SdpaTest(ClientTestCase):
    QUERY, KEY, VALUE = normal(1, 2, 4, 5, 8), normal(2, 2, 2, 7, 8), normal(3, 2, 2, 7, 6)

    def request(self, **options):
        return pb.ScaledDotProductAttentionRequest(
            query=to_tensor(self.QUERY), key=to_tensor(self.KEY), value=to_tensor(self.VALUE), options=options
        )

    def test_options_have_the_bits_of_a_plain_call(self):
        mask, bias, slopes, sinks = normal(4, 5, 7) > 0, normal(5, 1, 4, 5, 7), normal(6, 4), normal(7, 4)
        key_mask = np.array([[True] * 7, [False, True] * 3 + [True]])
        for ours, plain in (
            ({}, {}),
            ({"causal": "top_left"}, {"causal": pb.CAUSAL_MODE_TOP_LEFT}),
            ({"causal": "bottom_right", "scale": 0.1}, {"causal": pb.CAUSAL_MODE_BOTTOM_RIGHT, "scale": 0.1}),
            ({"sliding_window_left": 1, "sliding_window_right": 2, "softcap": 0.7},) * 2,
            ({"valid_lengths": np.array([3, 7])}, {"valid_lengths": [3, 7]}),
            ({"mask": mask, "bias": bias}, {"mask": to_tensor(mask), "bias": to_tensor(bias)}),
            ({"key_mask": key_mask, "sinks": sinks}, {"key_mask": to_tensor(key_mask), "sinks": to_tensor(sinks)}),
            ({"alibi_slopes": slopes, "precision": "fast"}, {"alibi_slopes": to_tensor(slopes), "precision": pb.PRECISION_FAST}),
            ({"sinks": [0.5] * 4}, {"sinks": to_tensor(np.full(4, 0.5, np.float32))}),
        ):
            with self.subTest(**ours):
                response = self.stub.ScaledDotProductAttention(self.request(**plain))
                self.assert_result(self.client.sdpa(self.QUERY, self.KEY, self.VALUE, **ours), response)

    def test_every_output_has_the_bits_of_a_plain_call(self):
        for per_head in (False, True):
            request = self.request(top_k=3, attention_weights_form=2 if per_head else 1)
            names = ["output", "attention_weights", "log_sum_exp", "scores"]
            request.outputs.extend([1, 2, 3, 7, 8])
            result = self.client.sdpa(self.QUERY, self.KEY, self.VALUE, outputs=names, top_k=3, per_head=per_head)
            self.assert_result(result, self.stub.ScaledDotProductAttention(request))

    def test_layouts_are_the_same_attention(self):
        swapped = [np.swapaxes(array, 1, 2) for array in (self.QUERY, self.KEY, self.VALUE)]
        output = self.client.sdpa(*swapped, layout="bthe", causal="bottom_right").output
        expected = self.client.sdpa(self.QUERY, self.KEY, self.VALUE, causal="bottom_right").output
        assert_same_bits(np.swapaxes(output, 1, 2), expected, "output")

    def test_parts_are_merged(self):
        whole = self.client.sdpa(self.QUERY, self.KEY, self.VALUE).output
        outputs = ["output", "log_sum_exp"]
        part = self.client.sdpa(self.QUERY, self.KEY[..., :3, :], self.VALUE[..., :3, :], outputs=outputs)
        partials = (part.output[None], part.log_sum_exp[None])
        merged = self.client.sdpa(self.QUERY, self.KEY[..., 3:, :], self.VALUE[..., 3:, :], partials=partials).output
        assert_near(merged, whole, 3e-6, "merged")

    def test_types_come_back_as_they_came(self):
        for name in ("float16", "float32", "float64"):
            query, key, value = (array.astype(name) for array in (self.QUERY, self.KEY, self.VALUE))
            result = self.client.sdpa(query, key, value, outputs=["output", "attention_weights"])
            self.assertEqual(result.output.dtype, name)
            self.assertEqual(result.attention_weights.dtype, "float64" if name == "float64" else "float32")

    def test_messages_beyond_grpcs_own_limit_of_4_mib(self):
        query = normal(8, 8, 2048, 64)
        result = self.client.sdpa(query, query, query)
        self.assertEqual(result.output.shape, (8, 2048, 64))
        result.output[:] = 0  # It is the caller's own.

    def test_errors_name_the_field(self):
        with self.assertRaises(attend.InvalidArgumentError) as raised:
            self.client.sdpa(self.QUERY, self.KEY[..., :3], self.VALUE)
        error = raised.exception
        self.assertEqual((error.field, error.reason), ("key.shape", "INVALID_FIELD"))
        self.assertIsInstance(error, ValueError)
        with self.assertRaises(attend.NotFoundError) as raised:
            self.client.attend(self.QUERY[0, 0], layer="nobody")
        self.assertEqual(raised.exception.reason, "LAYER_NOT_FOUND")


class ServiceTest(ClientTestCase):
    FLAGS = ("--max-request-flops", "1e9")

    def test_what_the_server_says_of_itself(self):
        info = self.client.info()
        self.assertIn("float32", info.supported_data_types)
        self.assertEqual(info.limits.max_request_flops, 1e9)

    def test_estimates(self):
        small = self.client.estimate(attend.requests.sdpa(*(normal(i, 4, 8) for i in range(3))))
        self.assertEqual((small.admissible, small.limit), (True, ""))
        huge = np.broadcast_to(np.float32(0), (1 << 16, 64))
        estimate = self.client.estimate(attend.requests.sdpa(huge, huge, huge))
        self.assertEqual((estimate.admissible, estimate.limit), (False, "max_request_flops"))
        self.assertGreater(estimate.flops, 1e9)

    def test_a_stream_has_the_bits_of_calls(self):
        self.client.layers.create("notebook", init=(42, 64), replace=True)
        arrays = [normal(i, 1 + i % 7, 64) for i in range(300)]
        requests = [
            attend.requests.attend(array, layer="notebook") if i % 2 else attend.requests.sdpa(array, array, array, causal=True)
            for i, array in enumerate(arrays)
        ]
        answers = {answer.index: answer.result for answer in self.client.stream(requests)}
        self.assertEqual(sorted(answers), list(range(300)))
        for i, array in enumerate(arrays):
            alone = self.client.attend(array, layer="notebook") if i % 2 else self.client.sdpa(array, array, array, causal=True)
            assert_same_bits(answers[i].output, alone.output, f"answer {i}")

    def test_layers_come_and_go(self):
        layer = self.client.layers.create("a/b", init=(1, 16), config={"options": {"causal": "CAUSAL_MODE_TOP_LEFT", "scale": 0.3}})
        self.assertEqual((layer.embed_dim, layer.origin, layer.weight_types), (16, "init seed 1", ("float32",)))
        self.assertEqual(layer.config["options"], {"causal": "CAUSAL_MODE_TOP_LEFT", "scale": 0.3})
        self.assertGreater(layer.created, 1.6e9)
        with self.assertRaises(attend.AlreadyExistsError):
            self.client.layers.create("a/b", init=(1, 16))
        with self.assertRaises(attend.AbortedError):
            self.client.layers.create("a/b", init=(1, 16), replace=True, etag="other")
        x = normal(0, 3, 16)
        self.client.attend(x, layer="a/b", layer_etag=layer.etag)
        with self.assertRaises(attend.AbortedError):
            self.client.attend(x, layer="a/b", layer_etag="other")
        masked = self.client.attend(x, layer="a/b", outputs=["attention_weights"]).attention_weights
        self.assertTrue((masked[np.triu_indices(3, 1)] == 0).all(), "the layer's own mask")
        shown = self.client.attend(x, layer="a/b", causal=False, outputs=["attention_weights"]).attention_weights
        self.assertTrue((shown > 0).all(), "causal=False goes before the layer's mask")
        self.client.layers.delete("a/b", etag=layer.etag)
        with self.assertRaises(attend.NotFoundError):
            self.client.layers.get("a/b")

    def test_more_layers_than_fit_into_a_page(self):
        with Server("--max-layers", "1200") as server, attend.Client(server.address) as client:
            for i in range(1001):
                client.layers.create(f"l{i:04}", init=(i, 1))
            self.assertEqual([layer.name for layer in client.layers.list()], [f"l{i:04}" for i in range(1001)])


class HealthTest(unittest.TestCase):
    """A server that drains says NOT_SERVING for --drain-wait, and takes calls meanwhile: whoever calls it then did not watch."""

    def setUp(self):
        self.leaving, self.staying = (self.start() for _ in range(2))
        self.targets = f"{self.leaving.address},{self.staying.address}"

    def start(self):
        server = Server("--drain-wait", "600s", "--admin-listen", "127.0.0.1:0")
        self.addCleanup(server.kill)
        return server

    def drain(self):
        """Returns when the server has said so."""
        health = health_pb2_grpc.HealthStub(self.leaving.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        next(health)
        self.leaving.terminate()
        self.assertEqual(next(health).status, health_pb2.HealthCheckResponse.NOT_SERVING)

    def calls(self, server):
        return Scrape(server.admin_port).sum("grpc_server_started_total", grpc_method="ScaledDotProductAttention")

    def call(self, client, count=20):
        array = np.eye(2, dtype=np.float32)
        for _ in range(count):
            client.sdpa(array, array, array)

    def test_a_draining_server_among_several_gets_no_new_calls(self):
        with attend.Client(self.targets) as client:
            # Connections are made one after the other.
            while not (self.calls(self.leaving) and self.calls(self.staying)):
                self.call(client, 2)
            self.drain()
            # The client hears of it as the test does, but not at the same moment.
            before = -1
            for _ in range(50):
                if before == self.calls(self.leaving):
                    break
                before = self.calls(self.leaving)
                self.call(client)
            self.call(client, 100)
            self.assertEqual(self.calls(self.leaving), before)
            self.assertGreaterEqual(self.calls(self.staying), 120)
        with attend.Client(self.targets, watch_health=False) as client:
            self.call(client, 200)
            self.assertGreater(self.calls(self.leaving), before)

    def test_asynchronously(self):
        async def main():
            array = np.eye(2, dtype=np.float32)
            async with attend.aio.Client(self.targets) as client:
                for _ in range(40):
                    await client.sdpa(array, array, array)

        self.drain()
        asyncio.run(main())
        self.assertEqual((self.calls(self.leaving), self.calls(self.staying)), (0, 40))

    def test_one_address_is_called_whatever_it_says(self):
        """Behind a load balancer's address there may be another server, and a draining one still takes calls."""
        self.drain()
        with attend.Client(self.leaving.address) as client:
            self.call(client, 1)
        with attend.Client(self.leaving.address, watch_health=True) as client, self.assertRaises(attend.UnavailableError) as raised:
            client.sdpa(*[np.eye(2, dtype=np.float32)] * 3, timeout=60)
        self.assertIn("backend unhealthy", str(raised.exception))


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.certificates = Certificates(directory.name)
        cls.certificates.authority("ca")

    def server(self, names):
        """Its port; its certificate has the names."""
        self.certificates.leaf("server", "ca", names)
        flags = ("--tls-cert", self.certificates.path("server.crt"), "--tls-key", self.certificates.path("server.key"))
        server = Server(*flags)
        self.addCleanup(server.kill)
        return server.port

    def info(self, target, **arguments):
        with attend.Client(target, timeout=20, **arguments) as client:
            client.info()

        async def asynchronous():
            async with attend.aio.Client(target, timeout=20, **arguments) as client:
                await client.info()

        asyncio.run(asynchronous())

    def test_several_addresses_have_the_firsts_name(self):
        ports = [self.server("IP:127.0.0.1") for _ in range(2)]
        ca = self.certificates.path("ca.crt")
        credentials = grpc.ssl_channel_credentials(self.certificates.text("ca.crt"))
        listed = f"127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        for target in (f"127.0.0.1:{ports[0]}", listed, f"ipv4:{listed}"):
            with self.subTest(target):
                self.info(target, tls=attend.Tls(ca=ca))
                self.info(target, credentials=credentials)
        with self.assertRaises(attend.UnavailableError):
            self.info(f"127.0.0.2:1,{listed}", tls=attend.Tls(ca=ca))

    def test_a_list_with_names_has_the_firsts_name(self):
        port, ca = self.server("DNS:localhost"), self.certificates.path("ca.crt")
        self.info(f"localhost:{port},127.0.0.1:{port}", tls=attend.Tls(ca=ca))
        with self.assertRaises(attend.UnavailableError):
            self.info(f"127.0.0.1:{port},localhost:{port}", tls=attend.Tls(ca=ca))

    def test_a_name_that_is_given_is_the_one_that_counts(self):
        port, ca = self.server("DNS:attend.example"), self.certificates.path("ca.crt")
        target = f"127.0.0.1:{port},127.0.0.1:{port}"
        self.info(target, tls=attend.Tls(ca=ca, server_name="attend.example"))
        with self.assertRaises(attend.UnavailableError):
            self.info(target, tls=attend.Tls(ca=ca))


class PackageTest(unittest.TestCase):
    def test_every_public_name_exists(self):
        for name in attend.__all__:
            self.assertTrue(hasattr(attend, name), name)

    def test_it_needs_no_common_protos(self):
        """google.rpc's messages are its own: those of googleapis-common-protos may be there or not, in any version."""
        import subprocess
        import sys

        code = "import sys, attend, attend.aio; sys.exit(any(name.startswith('google.rpc') for name in sys.modules))"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    unittest.main()
