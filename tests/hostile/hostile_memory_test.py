"""What strangers can make the server hold is bounded by its limits, whatever way they choose."""

import contextlib
import os
import pathlib
import tempfile
import unittest

import grpc
import numpy as np

from attend_testing import safetensors
from attend_testing.errors import call_failure
from attend_testing.http2 import connect, data_frames, headers_frame, message
from attend_testing.layers import Weights, chunks, header, upload, upload_failure
from attend_testing.requests import sdpa_request
from attend_testing.server import Server, resident_growth
from attend_testing.stubs import layers_pb, pb, reflection_pb2

Code = grpc.StatusCode
MIB = 1 << 20
LONG = os.environ.get("ATTEND_HOSTILE") == "long"


def small_request():
    x = np.ones((5, 8), np.float32)
    return sdpa_request(x, x, x)


@contextlib.contextmanager
def at_most(server, growth, test):
    """Within the block the server's memory grows by at most `growth` bytes."""
    server.stub.ScaledDotProductAttention(small_request(), timeout=60)
    server.reset_peak_rss()
    before = server.rss_bytes()
    yield
    test.assertTrue(server.alive(), server.log())
    test.assertLess(server.peak_rss_bytes() - before, resident_growth(growth))
    server.stub.ScaledDotProductAttention(small_request(), timeout=60)


class LayersTest(unittest.TestCase):
    def test_sixty_bytes_make_no_gigabytes(self):
        """The weights that `init` asks for count before they are made: here 1.5 GiB of them, and the packed ones again."""
        with Server("--max-memory-in-flight-bytes", "64MiB", "--max-layers-bytes", "4GiB") as server, at_most(server, 64 * MIB, self):
            for name in ("a", "b"):
                failure = upload_failure(server.layers, [header(name, init=layers_pb.SeededWeights(embed_dim=12000))])
                self.assertEqual(failure.code, Code.RESOURCE_EXHAUSTED, failure.message)
                self.assertIn("--max-memory-in-flight-bytes", failure.message)

    def test_a_layer_counts_beside_its_successor(self):
        """Requests may use it for as long as they like; so it is the memory in flight that must have room for it."""
        flags = ("--max-memory-in-flight-bytes", "8MiB", "--max-layers-bytes", "64MiB")
        with tempfile.TemporaryDirectory() as folder, Server(*flags, "--data-dir", folder) as server:
            upload(server.layers, "a", Weights(1, dim=1200).file(), chunk_size=100 << 10)
            seed = layers_pb.SeededWeights(embed_dim=8)
            failure = upload_failure(server.layers, [header("a", init=seed, replace=True)])
            self.assertEqual(failure.code, Code.RESOURCE_EXHAUSTED, failure.message)
            self.assertIn("--max-memory-in-flight-bytes", failure.message)
            server.layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="a"), timeout=60)
            upload(server.layers, "a", init=seed)
            upload(server.layers, "a", init=seed, replace=True)

    def test_tensors_that_no_layer_uses_do_not_fill_the_disk(self):
        tensors = {f"{name}.weight": np.zeros((16, 16), np.float32) for name in ("query", "key", "value")}
        junk = safetensors.dump({**tensors, "junk": np.zeros(400 << 8, np.float32)})  # 400 KiB
        with tempfile.TemporaryDirectory() as folder:
            flags = ("--data-dir", folder + "/data", "--max-data-dir-bytes", "1MiB")

            def used():
                return sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())

            with Server(*flags) as server:
                for name in ("a", "b"):
                    upload(server.layers, name, junk, config=ignoring_junk())
                self.check_full(server, junk, used)
                upload(server.layers, "tiny", init=layers_pb.SeededWeights(embed_dim=8))
            with Server(*flags) as server:  # What is there counts after a restart too.
                self.check_full(server, junk, used)
                server.layers.DeleteLayer(layers_pb.DeleteLayerRequest(name="a"), timeout=60)
                for _ in range(4):  # What was replaced or refused has been given back.
                    upload(server.layers, "b", Weights(1).file(), replace=True)
                    upload(server.layers, "a", junk, config=ignoring_junk(), replace=True)
                    upload(server.layers, "b", junk, config=ignoring_junk(), replace=True)
                    self.check_full(server, junk, used)

    def check_full(self, server, junk, used):
        failure = upload_failure(server.layers, [header("c", config=ignoring_junk()), *chunks(junk, 100 << 10)])
        self.assertEqual(failure.code, Code.RESOURCE_EXHAUSTED, failure.message)
        self.assertIn("--max-data-dir-bytes", failure.message)
        self.assertLessEqual(used(), MIB)


def ignoring_junk():
    return layers_pb.LayerConfig(num_heads=1, ignored_tensors=["junk"])


class MessagesTest(unittest.TestCase):
    def test_a_stream_message_in_a_million_pieces(self):
        """One message of the field `attend` in pieces of one byte, which protobuf would have joined."""
        pieces = b"\x1a\x01\x0a" * ((16 if LONG else 4) * MIB)
        self.assertEqual(pb.StreamAttendRequest.DESCRIPTOR.fields_by_name["attend"].number, 3)
        with Server() as server, at_most(server, 6 * len(pieces), self):
            method = server.channel.stream_stream("/attend.v1.AttentionService/StreamAttend")
            failure = call_failure(lambda request, timeout: list(method(iter([request]), timeout=timeout)), pieces)
            self.assertEqual((failure.code, failure.reason), (Code.INVALID_ARGUMENT, "INVALID_FIELD"), failure)

    def test_reflection_that_nobody_reads(self):
        """Each answer has its question again and the descriptors: they count until they are sent."""
        question = reflection_pb2.ServerReflectionRequest(file_containing_symbol="attend.v1.AttentionService")
        question.host = "h" * 3000
        connections, growth = (100, 256 * MIB) if LONG else (10, 64 * MIB)
        with Server("--max-memory-in-flight-bytes", "16MiB") as server, contextlib.ExitStack() as stack, at_most(server, growth, self):
            for _ in range(connections):
                self.ask_on_every_stream(stack.enter_context(connect(server)), question.SerializeToString())
            # All have been looked at when another connection's question has an answer or a refusal.
            self.answers(server)

    def ask_on_every_stream(self, connection, question):
        for stream in range(1, 512, 2):
            connection.sendall(
                headers_frame(stream, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
                + data_frames(stream, message(question))
            )

    def answers(self, server):
        server.stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=60)

    def test_a_reflection_question_is_a_name(self):
        with Server() as server:
            method = server.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
            question = reflection_pb2.ServerReflectionRequest(host="h" * 5000, list_services="").SerializeToString()
            failure = call_failure(lambda request, timeout: list(method(iter([request]), timeout=timeout)), question)
            self.assertEqual((failure.code, failure.reason), (Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"), failure)


if __name__ == "__main__":
    unittest.main()
