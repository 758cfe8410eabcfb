"""What the Python package sends, read by protobuf's own parser, and how it reads answers and targets. Needs no server."""

import pathlib
import resource
import socket
import unittest
import unittest.mock

import attend
import grpc
import numpy as np
from attend import _channel, _large, _results, _wire
from attend._arrays import Kind

from attend_testing.stubs import pb, tensor_pb2
from attend_testing.wire_messages import F32, normal, rng, sent, tensor


class MessageTest(unittest.TestCase):
    maxDiff = None

    def test_every_option_of_sdpa_is_where_the_protocol_has_it(self):
        query, key, value = normal(2, 4, 3, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 6)
        mask, key_mask = rng().random((3, 5)) < 0.5, rng().random((2, 5)) < 0.5
        bias, slopes, sinks = normal(1, 4, 3, 5), normal(4), normal(4)
        request = attend.requests.sdpa(
            query, key, value, outputs=["output", "log_sum_exp"], causal="top_left", scale=0.1, softcap=30.0, sliding_window_left=0,
            sliding_window_right=2**40, valid_lengths=[5, 0], mask=mask, key_mask=key_mask, bias=bias, alibi_slopes=slopes,
            sinks=sinks, top_k=300, per_head=True, precision="fast", layout="bhte",
        )  # fmt: skip
        bools = tensor_pb2.DATA_TYPE_BOOL
        expected = pb.ScaledDotProductAttentionRequest(
            query=tensor(query), key=tensor(key), value=tensor(value),
            outputs=[pb.OUTPUT_KIND_OUTPUT, pb.OUTPUT_KIND_LOG_SUM_EXP, pb.OUTPUT_KIND_TOP_ATTENTION_WEIGHTS],
            options=pb.AttentionOptions(
                causal=pb.CAUSAL_MODE_TOP_LEFT, scale=0.1, softcap=30.0, sliding_window_left=0, sliding_window_right=2**40,
                valid_lengths=[5, 0], mask=tensor(mask, bools), key_mask=tensor(key_mask, bools), bias=tensor(bias),
                alibi_slopes=tensor(slopes), sinks=tensor(sinks), top_k=300, precision=pb.PRECISION_FAST,
                attention_weights_form=pb.ATTENTION_WEIGHTS_FORM_PER_HEAD,
            ),
        )  # fmt: skip
        self.assertEqual(sent(request), expected)

    def test_no_option_of_the_protocol_is_missing(self):
        known = set(attend.Options.__annotations__) - {"per_head"} | {"attention_weights_form"}
        in_protocol = {field.name for field in pb.AttentionOptions.DESCRIPTOR.fields if not field.GetOptions().deprecated}
        self.assertEqual(known, in_protocol)

    def test_attend_with_weights_and_context(self):
        x, context = normal(2, 3, 8), normal(2, 5, 6)
        weights = {"query.weight": normal(4, 8), "key.weight": normal(4, 6), "value.weight": normal(4, 6), "value.bias": normal(4)}
        request = attend.requests.attend(x, context=context, layer=weights, num_heads=2, cumulative_query_lengths=[0, 3])
        expected = pb.AttendRequest(
            embeddings=tensor(x), context=tensor(context), outputs=[pb.OUTPUT_KIND_OUTPUT],
            options=pb.AttentionOptions(cumulative_query_lengths=[0, 3]),
        )  # fmt: skip
        expected.layer.num_heads = 2
        for name in ("query", "key", "value"):
            getattr(expected.layer, f"{name}_projection").weight.CopyFrom(tensor(weights[f"{name}.weight"]))
        expected.layer.value_projection.bias.CopyFrom(tensor(weights["value.bias"]))
        self.assertEqual(sent(request), expected)

    def test_weights_may_be_lists_and_none(self):
        x = normal(3, 2).astype(np.float64)
        weights = {f"{name}.weight": normal(2, 2).astype(np.float64) for name in ("query", "key", "value")}
        lists = {name: array.tolist() for name, array in weights.items()}
        none = {"output.weight": None, "output.bias": None, "key.bias": None}
        expected = attend.requests.attend(x, layer=weights)
        for layer in (lists, weights | none):
            request = attend.requests.attend(x, layer=layer)
            self.assertEqual((sent(request), request.cost), (sent(expected), expected.cost))

    def test_attend_by_name(self):
        x = normal(2, 3, 8)
        request = attend.requests.attend(x, layer="minilm/0", layer_etag="abc", position_offset=np.array([0, 2**40]), causal=False)
        expected = pb.AttendRequest(
            embeddings=tensor(x), layer_name="minilm/0", layer_etag="abc", position_offsets=[0, 2**40],
            outputs=[pb.OUTPUT_KIND_OUTPUT], options=pb.AttentionOptions(causal=pb.CAUSAL_MODE_NONE),
        )  # fmt: skip
        self.assertEqual(sent(request), expected)
        self.assertEqual(sent(attend.requests.attend(x, layer="a", position_offset=-1)).position_offset, -1)

    def test_partial_results_and_layout(self):
        query, output, log_sum_exp = normal(3, 8), normal(2, 3, 8), normal(2, 3)
        message = sent(attend.requests.sdpa(query, query, query, partials=(output, log_sum_exp), layout="bthe"))
        self.assertEqual(message.partials, pb.PartialAttention(output=tensor(output), log_sum_exp=tensor(log_sum_exp)))
        self.assertEqual(message.layout, pb.TENSOR_LAYOUT_BTHE)

    def test_every_element_type_travels_as_it_is(self):
        for name in ("float16", "float32", "float64"):
            array = normal(4, 8).astype(name)
            query = sent(attend.requests.sdpa(array, array, array)).query
            self.assertEqual(query, tensor(array, tensor_pb2.DataType.Value(f"DATA_TYPE_{name.upper()}")))

    def test_arrays_that_are_no_rows_of_little_endian_bytes_are_sent_as_such(self):
        array = normal(4, 8)
        for other in (array.astype(">f4"), np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]):
            self.assertEqual(sent(attend.requests.sdpa(other, other, other)).query, tensor(array))
        for name in ("f2", "f8"):
            other = array.astype(">" + name)
            self.assertEqual(sent(attend.requests.sdpa(other, other, other)).query.data, array.astype("<" + name).tobytes())

    def test_large_arrays_are_referred_to_and_not_copied(self):
        array = normal(64, 64)
        pieces, _ = attend.requests.sdpa(array, array, array).message.pieces()
        self.assertEqual(sum(isinstance(piece, np.ndarray) and np.shares_memory(piece, array) for piece in pieces), 3)

    def test_large_messages_are_joined_as_small_ones_are(self):
        arrays = [normal(512, 4099), normal(3), np.zeros((0, 3), np.float16), normal(1 << 20) > 0]
        pieces = [b"", b"head", np.ascontiguousarray(arrays[0]), b"x", *arrays[2:]]
        expected = b"".join(piece if isinstance(piece, bytes) else piece.tobytes() for piece in pieces)
        self.assertGreater(len(expected), _large.LARGE_BYTES)
        self.assertEqual(_wire.join(pieces), expected)
        with unittest.mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            self.assertEqual(_wire.join(pieces), expected)

    def test_an_estimate_describes_arrays_without_their_elements(self):
        huge = np.broadcast_to(np.float32(0), (8, 1 << 20, 64))
        message = sent(attend.requests.sdpa(huge, huge, huge), with_data=False)
        self.assertEqual(message.key, tensor_pb2.Tensor(data_type=F32, shape=(8, 1 << 20, 64)))


class CausalTest(unittest.TestCase):
    def mode(self, queries, keys, **options):
        request = attend.requests.sdpa(normal(queries, 8), normal(keys, 8), normal(keys, 8), **options)
        return pb.CausalMode.Name(sent(request).options.causal)

    def test_true_is_taken_only_where_it_means_one_thing(self):
        self.assertEqual(self.mode(5, 5, causal=True), "CAUSAL_MODE_BOTTOM_RIGHT")
        for queries, keys, options in ((3, 5, {}), (5, 3, {}), (5, 5, {"valid_lengths": [4]})):
            with self.assertRaisesRegex(ValueError, "bottom_right.*top_left"):
                self.mode(queries, keys, causal=True, **options)

    def test_ragged_sequences_are_compared_one_by_one(self):
        same = {"cumulative_query_lengths": [0, 2, 6], "cumulative_key_lengths": [0, 2, 6]}
        self.assertEqual(self.mode(6, 6, causal=True, **same), "CAUSAL_MODE_BOTTOM_RIGHT")
        with self.assertRaisesRegex(ValueError, "bottom_right"):
            self.mode(6, 6, causal=True, **(same | {"cumulative_key_lengths": [0, 4, 6]}))
        with self.assertRaisesRegex(ValueError, "bottom_right"):
            self.mode(6, 6, causal=True, cumulative_key_lengths=[0, 2, 6])

    def test_ragged_sequences_may_be_arrays(self):
        lengths = np.array([0, 2, 6])
        for keys in (lengths, [0, 2, 6], lengths.astype(">i4")):
            same = {"cumulative_query_lengths": lengths, "cumulative_key_lengths": keys}
            self.assertEqual(self.mode(6, 6, causal=True, **same), "CAUSAL_MODE_BOTTOM_RIGHT")
        with self.assertRaisesRegex(ValueError, "bottom_right"):
            self.mode(6, 6, causal=True, cumulative_query_lengths=lengths, cumulative_key_lengths=np.array([0, 4, 6]))

    def test_layout_says_which_axis_counts_tokens(self):
        query, key = normal(3, 4, 8), normal(3, 2, 8)
        sent(attend.requests.sdpa(query, key, key, causal=True, layout="bthe"))
        with self.assertRaisesRegex(ValueError, "4 queries and 2 keys"):
            attend.requests.sdpa(query, key, key, causal=True)

    def test_names_are_taken_as_they_are_and_others_are_refused(self):
        self.assertEqual(self.mode(3, 5, causal="top_left"), "CAUSAL_MODE_TOP_LEFT")
        self.assertEqual(self.mode(3, 5, causal=None), "CAUSAL_MODE_UNSPECIFIED")
        for wrong in ("upper_left", "unspecified", 1.0):
            with self.subTest(wrong), self.assertRaises(ValueError):
                self.mode(3, 5, causal=wrong)


class AnswerTest(unittest.TestCase):
    def test_an_answer_is_read_as_protobuf_writes_it(self):
        output, indices = normal(3, 4), np.array([[2, -1]] * 3, "<i4")
        answer = pb.ScaledDotProductAttentionResponse(
            output=tensor(output),
            top_attention_indices=tensor(indices, tensor_pb2.DATA_TYPE_INT32),
            receipt=pb.Receipt(server_version="0.2.0", kernel="avx2", layer_etag="e"),
        )
        content = answer.SerializeToString() + b"\xfa\x7f\x03abc"  # With a field of a later version behind it.
        timing = "receive;dur=1.5, queue;dur=0.000, compute;dur=2.25, send;dur=0.5"
        result = _results.read_result("ScaledDotProductAttentionResponse", memoryview(content), Kind(False), timing)
        np.testing.assert_array_equal(result.output, output)
        np.testing.assert_array_equal(result.top_attention_indices, indices)
        self.assertTrue(result.output.flags.writeable and result.output.flags.aligned)
        self.assertIsNone(result.attention_weights)
        self.assertEqual(result.receipt, ("0.2.0", "avx2", "e"))
        self.assertEqual(result.timing, (1.5, 0.0, 2.25, 0.5))

    def test_small_and_large_answers_are_read_alike(self):
        for rows in (1, 255, 256, 20000, 1 << 15):  # 256 bytes a row: on both sides of 64 KiB and of 4 MiB.
            output = normal(rows, 64)
            answer = pb.AttendResponse(output=tensor(output), receipt=pb.Receipt(kernel="avx2")).SerializeToString()
            with self.subTest(rows):
                result = _results.read_result("AttendResponse", answer, Kind(False), "")
                np.testing.assert_array_equal(result.output, output)
                self.assertTrue(result.output.flags.writeable and result.output.flags.aligned)
                self.assertFalse(np.shares_memory(result.output, np.frombuffer(answer, np.uint8)))
                self.assertEqual(result.receipt.kernel, "avx2")

    def test_answers_of_one_size_are_told_apart(self):
        """The reader remembers what an answer looks like, but for its elements."""
        first, second = normal(4, 6), normal(4, 6) + 1
        receipts = [pb.Receipt(kernel="avx2"), pb.Receipt(kernel="neon")]
        answers = [
            pb.AttendResponse(output=tensor(first), receipt=receipts[0]),
            pb.AttendResponse(output=tensor(second), receipt=receipts[0]),
            pb.AttendResponse(output=tensor(second.reshape(6, 4)), receipt=receipts[0]),
            pb.AttendResponse(output=tensor(second), receipt=receipts[1]),
            pb.AttendResponse(attention_weights=tensor(first), receipt=receipts[0]),
            pb.AttendResponse(output=tensor(first.view(np.int32), tensor_pb2.DATA_TYPE_INT32), receipt=receipts[0]),
            pb.AttendResponse(output=tensor(first.view("<f2"), tensor_pb2.DATA_TYPE_BFLOAT16), receipt=receipts[0]),
        ]
        self.assertEqual(len({len(answer.SerializeToString()) for answer in answers[:5]}), 1)
        for answer in answers * 3:
            result = _results.read_result("AttendResponse", answer.SerializeToString(), Kind(False), "")
            name, sent = next((name, getattr(answer, name)) for name in ("output", "attention_weights") if answer.HasField(name))
            array = getattr(result, name)
            self.assertEqual((array.tobytes(), list(array.shape)), (sent.data, list(sent.shape)))
            self.assertEqual(array.dtype.kind, {F32: "f", tensor_pb2.DATA_TYPE_INT32: "i"}.get(sent.data_type, "u"))
            self.assertEqual(result.receipt.kernel, answer.receipt.kernel)
            self.assertTrue(array.flags.writeable and array.flags.aligned)
            self.assertEqual(len(vars(result)), 3, "no other tensor")

    def test_many_sizes_of_answers_are_not_all_remembered(self):
        for rows in range(1, 600):
            answer = pb.AttendResponse(output=tensor(normal(rows, 1))).SerializeToString()
            result = _results.read_result("AttendResponse", answer, Kind(False), "")
            self.assertEqual(result.output.shape, (rows, 1))
        self.assertLess(len(_results._LAYOUTS), 300)
        # As threads that add at the same time leave it.
        layout = next(iter(_results._LAYOUTS.values()))
        _results._LAYOUTS.update({("none", i): layout for i in range(300)})
        answer = pb.AttendResponse(output=tensor(normal(601, 1))).SerializeToString()
        _results.read_result("AttendResponse", answer, Kind(False), "")
        self.assertLess(len(_results._LAYOUTS), 300)

    def test_memory_of_large_results_is_given_back(self):
        content = pb.AttendResponse(output=tensor(normal(1 << 15, 64))).SerializeToString()

        def resident():
            return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

        row = _results.read_result("AttendResponse", memoryview(content), Kind(False), "").output[7]
        np.testing.assert_array_equal(row, np.frombuffer(content, np.uint8)[-8388608:].view("<f4").reshape(-1, 64)[7])
        before = resident()
        for _ in range(40):
            _results.read_result("AttendResponse", memoryview(content), Kind(False), "")
        self.assertLess(resident() - before, 20 << 20)

    def test_a_cut_answer_is_an_error(self):
        content = pb.AttendResponse(output=tensor(normal(3, 4))).SerializeToString()
        for size in range(1, len(content)):
            with self.subTest(size), self.assertRaises((ValueError, IndexError)):
                _results.read_result("AttendResponse", memoryview(content)[:size], Kind(False), "")


class TargetTest(unittest.TestCase):
    def channel(self, target, tls=None, token=None, insecure=False, credentials=None):
        return _channel.make_channel(target, tls, token, insecure, credentials, watch_health=None)

    def test_plaintext_stays_on_this_machine(self):
        for target in ("localhost", "127.0.0.1:1", "[::1]:50051", "127.0.0.1:1,127.0.0.2:1", "unix:/run/attend", "dns:///localhost:1"):
            with self.subTest(target):
                self.assertIsNone(self.channel(target, token="secret").credentials)
        for target in ("attend:50051", "10.0.0.1", "127.0.0.1:1,10.0.0.1:1", "dns:///attend.example:1", "localhost.example", "xds:///a"):
            with self.subTest(target):
                with self.assertRaisesRegex(ValueError, "plaintext"):
                    self.channel(target)
                with self.assertRaisesRegex(ValueError, "the token and the data"):
                    self.channel(target, token="secret")
                self.assertIsNone(self.channel(target, insecure=True).credentials)
                self.assertIsNotNone(self.channel(target, tls=True).credentials)

    def test_lists_in_every_form_may_be_called(self):
        for target in ("127.0.0.1:1,127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "ipv4:///127.0.0.1:1,127.0.0.2:1"):
            with self.subTest(target):
                self.assertIsNotNone(self.channel(target, tls=True).credentials)
                self.assertIsNone(self.channel(target).credentials)

    def test_targets_are_named_as_grpc_names_them(self):
        for target, uri in (
            ("attend.example", "dns:///attend.example:50051"),
            ("attend.example:443", "dns:///attend.example:443"),
            ("10.0.0.1:1, 10.0.0.2", "ipv4:10.0.0.1:1,10.0.0.2:50051"),
            ("10.0.0.1:5,[::1]:6", "ipv6:[::ffff:10.0.0.1]:5,[::1]:6"),
            ("[fe80::1]", "ipv6:[fe80::1]:50051"),
            ("unix:/run/attend.sock", "unix:/run/attend.sock"),
        ):
            self.assertEqual(self.channel(target, insecure=True).target, uri)
        wrongs = ("host:port", "http://host:1", "host:0", "::1", ":50051", "", "[::1:1", "[]:1", "ho[st:1", "a,,b", "a,unix:/b", "a b,c")
        for wrong in wrongs:
            with self.subTest(wrong), self.assertRaises(ValueError):
                self.channel(wrong, insecure=True)

    def resolved(self, target, **arguments):
        """The channel to `target` where a name in a list has the addresses below."""
        hosts = {"four": ["10.0.0.1", "10.0.0.2"], "six": ["fd00::1"], "both": ["::1", "127.0.0.1"], "near": ["127.0.0.1"]}

        def resolve(host, port, type):
            if host not in hosts:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in hosts[host]]
            return [(family, type, 6, "", (address, int(port))) for family, address in zip(families, hosts[host], strict=True)]

        with unittest.mock.patch("socket.getaddrinfo", resolve):
            return self.channel(target, **arguments)

    def test_names_in_a_list_are_resolved(self):
        for target, uri in (
            ("four, near:2", "ipv4:10.0.0.1:50051,10.0.0.2:50051,127.0.0.1:2"),
            ("10.0.0.3,near:2", "ipv4:10.0.0.3:50051,127.0.0.1:2"),
            ("six:1,[::1]", "ipv6:[fd00::1]:1,[::1]:50051"),
            ("four:1,six:2", "ipv6:[::ffff:10.0.0.1]:1,[::ffff:10.0.0.2]:1,[fd00::1]:2"),
        ):
            with self.subTest(target):
                self.assertEqual(self.resolved(target, insecure=True).target, uri)

    def test_a_name_in_a_list_that_has_no_address(self):
        for target in ("near:1,nowhere:2", "nowhere,10.0.0.1"):
            with self.subTest(target), self.assertRaisesRegex(attend.UnavailableError, "cannot resolve 'nowhere': Name or"):
                self.resolved(target, insecure=True)
        # An empty label: no resolver asks a DNS server for it.
        with self.assertRaisesRegex(attend.UnavailableError, r"cannot resolve 'no\.\.name'"):
            self.channel("10.0.0.1:1,no..name:2", insecure=True)

    def test_plaintext_to_names_in_a_list_goes_by_their_addresses(self):
        for target in ("near:1,both:2", "127.0.0.1:1,[::1]:1"):
            with self.subTest(target):
                self.assertIsNone(self.resolved(target, token="secret").credentials)
        for target in ("near,four", "both,six", "10.0.0.1,[::1]"):
            with self.subTest(target), self.assertRaisesRegex(ValueError, "plaintext"):
                self.resolved(target)

    def test_a_list_is_looked_for_in_certificates_by_its_first_host(self):
        for target, name in (
            ("four:1,near:2", "four"),
            ("10.0.0.3:1,both:2", "10.0.0.3"),
            ("[fd00::1],four", "fd00::1"),
            ("ipv4:10.0.0.1:1,10.0.0.2:1", "10.0.0.1"),
            ("four", None),
            ("10.0.0.1", None),
        ):
            with self.subTest(target):
                options = dict(self.resolved(target, tls=True).options)
                self.assertEqual(options.get("grpc.ssl_target_name_override"), name)

    def test_tls_is_what_it_is_taken_for(self):
        for tls in ("ca.pem", "", pathlib.Path("ca.pem"), b"PEM", grpc.ssl_channel_credentials(), 1, ("ca.pem",)):
            for target in ("localhost", "attend.example"):
                with self.subTest(tls), self.assertRaisesRegex(TypeError, r"^tls is of the type .*attend\.Tls\(ca=") as raised:
                    self.channel(target, tls=tls)
                self.assertNotIn("PEM", str(raised.exception))

    def test_tls_files_and_names_that_are_empty(self):
        for name in ("ca", "certificate", "key", "server_name"):
            for empty in ("", b""):
                with self.subTest(name), self.assertRaisesRegex(ValueError, rf"^tls\.{name} is empty"):
                    self.channel("localhost", tls=attend.Tls(**{"certificate": b"a", "key": b"a", name: empty}))

    def test_a_private_key_is_not_shown(self):
        tls = attend.Tls(ca="ca.pem", certificate=b"CHAIN", key=b"PRIVATE")
        for text in (repr(tls), str(tls), f"{tls}", f"{[tls]}"):
            self.assertIn("Tls(ca='ca.pem', certificate=<bytes>, key=<bytes>, server_name=None)", text)

    def test_a_token_may_change(self):
        tokens = iter("ab")
        channel = self.channel("localhost", token=lambda: next(tokens))
        self.assertEqual([channel.metadata()[0][1] for _ in range(2)], ["Bearer a", "Bearer b"])

    def test_white_space_around_a_token_is_not_sent(self):
        for token in ("secret\n", " secret\r\n", lambda: "\tsecret\n"):
            self.assertEqual(self.channel("localhost", token=token).metadata(), (("authorization", "Bearer secret"),))

    def test_what_is_no_token_is_refused_without_being_quoted(self):
        for token, error in (
            ("", ValueError), (" \n", ValueError), ("sec\nret", ValueError), ("sec ret", ValueError), ("secr\u00e9t", ValueError),
            ("secret\0", ValueError), ("sec\x7fret", ValueError), (b"secret", TypeError), (7, TypeError),
        ):  # fmt: skip
            for given in (token, lambda token=token: token):
                with self.subTest(token=token), self.assertRaisesRegex(error, "the token (is|has)") as raised:
                    self.channel("localhost", token=given).metadata()
                self.assertNotIn("sec", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
