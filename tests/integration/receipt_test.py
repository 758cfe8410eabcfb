"""Receipts: every answer says which server, kernels and layer computed it; and layer_etag asks for one version."""

import ctypes
import pathlib
import threading
import unittest

import grpc
import numpy as np

from attend_testing import oracle, safetensors
from attend_testing.element_types import BF16, encode, rounded
from attend_testing.errors import call_failure
from attend_testing.layers import Weights, embeddings, upload
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request
from attend_testing.server import Server, ServerTestCase
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import SCORES, WEIGHTS, assert_near, from_tensor, to_tensor

Code = grpc.StatusCode
TOKENS = to_tensor(embeddings(16))


def expected_receipt(stub, etag=""):
    info = stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)
    return pb.Receipt(server_version=info.version, kernel=info.instruction_set.lower(), layer_etag=etag)


def fast_family():
    """What a receipt says behind the instruction set when `--fast-kernels=on`; empty where there are no fast kernels."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    if "avx512_bf16" not in flags:
        return ""
    has_tiles = {"amx_tile", "amx_bf16"} <= set(flags) and may_use_tiles()
    return "-amx-fast" if has_tiles else "-bf16-fast"


def may_use_tiles():
    """Whether Linux permits it, which older versions do not although they list the instructions. The permission ends at exec."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


def bf16_request(precision, queries=20, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((1, 2, length, 64)) for length in (queries, 300, 300)]
    request = sdpa_request(*arrays, types=(BF16,) * 3)
    request.options.precision = precision
    return request, arrays


def bf16_file(weights):
    arrays = {f"{name}.weight": weight for name, (weight, _) in weights.projections.items()}
    bits = {name: np.frombuffer(encode(array, BF16), "<u2").reshape(array.shape) for name, array in arrays.items()}
    return safetensors.dump(bits, types=dict.fromkeys(bits, "BF16"))


class FastKernelsTest(unittest.TestCase):
    """PRECISION_FAST of BFLOAT16: exact, or within its own bound, as the receipt says."""

    def test_off_is_exact(self):
        with Server("--fast-kernels", "off") as server:
            exact, fast = (
                server.stub.ScaledDotProductAttention(bf16_request(precision)[0], timeout=60)
                for precision in (pb.PRECISION_EXACT, pb.PRECISION_FAST)
            )
            self.assertEqual(fast.output.data, exact.output.data)
            self.assertEqual(fast.receipt, exact.receipt)

    def test_on_is_named_in_the_receipt_and_within_its_bound_or_refused_at_the_start(self):
        if not fast_family():
            with self.assertRaises(RuntimeError):  # It ends before it writes its port.
                Server("--fast-kernels", "on").stop()
            return
        with Server("--fast-kernels", "on", "--threads", "2") as server:
            for queries in (1, 20, 200):
                request, arrays = bf16_request(pb.PRECISION_FAST, queries)
                answer = server.stub.ScaledDotProductAttention(request, timeout=60)
                self.assertEqual(answer.receipt.kernel, "avx512" + fast_family())
                q, k, v = (rounded(array, BF16) for array in arrays)
                expected = oracle.attend(q, k, v, Options(), precision=np.float64).output
                assert_near(from_tensor(answer.output), expected, 2.0**-7 * np.abs(v).max(), "output")
                request.options.precision = pb.PRECISION_EXACT
                exact = server.stub.ScaledDotProductAttention(request, timeout=60)
                self.assertEqual(exact.receipt.kernel, "avx512")
                self.assertNotEqual(exact.output.data, answer.output.data)

    def test_a_layer_may_ask_for_it_and_a_request_for_exact(self):
        weights = Weights(1, heads=2)
        config = layers_pb.LayerConfig(num_heads=2, options=pb.AttentionOptions(precision=pb.PRECISION_FAST))
        tokens = to_tensor(embeddings(16), data_type=BF16)
        exact_options = pb.AttentionOptions(precision=pb.PRECISION_EXACT)
        with Server("--fast-kernels", "on" if fast_family() else "auto") as server:
            exact = expected_receipt(server.stub).kernel
            fast = exact + fast_family()
            upload(server.layers, "narrow", bf16_file(weights), config=config)
            upload(server.layers, "wide", weights.file(), config=config)
            for name, options, kernel in (
                ("narrow", None, fast),
                ("narrow", exact_options, exact),
                ("wide", None, exact),  # FLOAT32 weights are not rounded.
            ):
                request = pb.AttendRequest(embeddings=tokens, layer_name=name, options=options)
                answer = server.stub.Attend(request, timeout=60)
                self.assertEqual(answer.receipt.kernel, kernel, (name, options))


class ReceiptTest(ServerTestCase):
    def test_every_answer_has_one(self):
        layer = upload(self.server.layers, "signed", Weights(1).file())
        plain, named = expected_receipt(self.stub), expected_receipt(self.stub, layer.etag)
        self.assertEqual(len(layer.etag), 32)
        self.assertIn(plain.kernel, ("avx512", "avx2", "neon", "sse4", "baseline"))
        values = to_tensor(embeddings(16), "values")
        for tokens in (TOKENS, values):
            for outputs in ((), (SCORES,), (WEIGHTS, SCORES)):
                attend = pb.AttendRequest(embeddings=tokens, outputs=outputs)
                sdpa = pb.ScaledDotProductAttentionRequest(query=tokens, key=tokens, value=tokens, outputs=outputs)
                by_name = pb.AttendRequest(embeddings=tokens, layer_name="signed", outputs=outputs)
                self.assertEqual(self.stub.Attend(attend, timeout=60).receipt, plain)
                self.assertEqual(self.stub.ScaledDotProductAttention(sdpa, timeout=60).receipt, plain)
                self.assertEqual(self.stub.Attend(by_name, timeout=60).receipt, named)
                answers = self.stub.StreamAttend(
                    iter(
                        [
                            pb.StreamAttendRequest(id=1, attend=attend),
                            pb.StreamAttendRequest(id=2, scaled_dot_product_attention=sdpa),
                            pb.StreamAttendRequest(id=3, attend=by_name),
                        ]
                    ),
                    timeout=60,
                )
                receipts = {a.id: (a.attend if a.HasField("attend") else a.scaled_dot_product_attention).receipt for a in answers}
                self.assertEqual(receipts, {1: plain, 2: plain, 3: named})

    def test_of_a_layer_that_is_replaced_all_the_time(self):
        """The etag is that of the layer that computed, and so belongs to the bits beside it."""
        versions, uploaded, stop = [Weights(2), Weights(3)], {}, threading.Event()

        def replace(i):
            weights = versions[i % 2]
            layer = upload(self.server.layers, "moving", weights.file(), replace=True)
            uploaded[layer.etag] = weights

        def replace_on():
            for i in range(10_000):
                if stop.is_set():
                    return
                replace(i)

        replace(1)
        replacer = threading.Thread(target=replace_on)
        replacer.start()
        results, aborted, etag = [], 0, ""
        try:
            for i in range(20_000):
                # Every other request asks for the version of the last answer.
                request = pb.AttendRequest(embeddings=TOKENS, layer_name="moving", layer_etag=etag if i % 2 else "")
                try:
                    answer = self.stub.Attend(request, timeout=60)
                except grpc.RpcError as error:
                    self.assertEqual((error.code(), i % 2), (Code.ABORTED, 1))
                    aborted += 1
                    continue
                etag = answer.receipt.layer_etag
                self.assertIn(request.layer_etag, ("", etag))
                results.append((etag, answer.output.data))
                if aborted > 5 and len(results) > 300:
                    break
        finally:
            stop.set()
            replacer.join()
        expected = {}
        for weights in versions:
            request = pb.AttendRequest(embeddings=TOKENS, layer=weights.inline())
            expected[weights] = self.stub.Attend(request, timeout=60).output.data
        self.assertEqual({uploaded[etag] for etag, _ in results}, set(versions))
        for etag, output in results:
            self.assertEqual(output, expected[uploaded[etag]])
        self.assertGreater(aborted, 5)


class KernelTest(unittest.TestCase):
    def test_the_kernel_is_the_one_that_was_chosen(self):
        for kernel in ("baseline", "auto"):
            with Server("--instruction-set", kernel) as server:
                expected = expected_receipt(server.stub)
                self.assertEqual(kernel in (expected.kernel, "auto"), True)
                sdpa = pb.ScaledDotProductAttentionRequest(query=TOKENS, key=TOKENS, value=TOKENS)
                self.assertEqual(server.stub.ScaledDotProductAttention(sdpa, timeout=60).receipt, expected)
                attend = pb.AttendRequest(embeddings=TOKENS)
                self.assertEqual(server.stub.Attend(attend, timeout=60).receipt, expected)


class PinTest(ServerTestCase):
    def test_another_version_is_refused_with_the_one_that_is_there(self):
        first = upload(self.server.layers, "pinned", Weights(4).file())
        request = pb.AttendRequest(embeddings=TOKENS, layer_name="pinned", layer_etag=first.etag)
        output = from_tensor(self.stub.Attend(request, timeout=60).output)
        second = upload(self.server.layers, "pinned", Weights(5).file(), replace=True)
        failure = call_failure(self.stub.Attend, request)
        self.assertEqual((failure.code, failure.reason), (Code.ABORTED, "ETAG_MISMATCH"))
        self.assertEqual(failure.metadata, {"layer_name": "pinned", "etag": second.etag})
        self.assertIn(second.etag, failure.message)
        request.layer_etag = second.etag
        self.assertFalse(np.array_equal(from_tensor(self.stub.Attend(request, timeout=60).output), output))
        for wrong in (second.etag[:-1], second.etag + "0", second.etag.upper() + " ", "x" * 100_000):
            request.layer_etag = wrong
            self.assertEqual(call_failure(self.stub.Attend, request).code, Code.ABORTED)
        # In a stream it is the request that fails.
        answers = list(self.stub.StreamAttend(iter([pb.StreamAttendRequest(id=9, attend=request)]), timeout=60))
        self.assertEqual([(a.id, a.status.code) for a in answers], [(9, Code.ABORTED.value[0])])

    def test_a_pin_needs_a_name(self):
        request = pb.AttendRequest(embeddings=TOKENS, layer_etag="0123")
        failure = call_failure(self.stub.Attend, request)
        self.assertEqual((failure.code, failure.fields), (Code.INVALID_ARGUMENT, ["layer_etag"]))

    def test_a_layer_that_is_not_there_is_not_found_whatever_the_pin(self):
        request = pb.AttendRequest(embeddings=TOKENS, layer_name="nowhere", layer_etag="0123")
        self.assertEqual(call_failure(self.stub.Attend, request).code, Code.NOT_FOUND)


class CreateTimeTest(ServerTestCase):
    def test_both_fields_tell_the_same_time(self):
        layer = upload(self.server.layers, "timed", Weights(6).file())
        self.assertGreater(layer.create_time.seconds, 1_600_000_000)
        self.assertEqual(layer.create_time.ToMilliseconds(), layer.create_time_ms)
        got = self.server.layers.GetLayer(layers_pb.GetLayerRequest(name="timed"), timeout=60).layer
        self.assertEqual(got.create_time, layer.create_time)


if __name__ == "__main__":
    unittest.main()
