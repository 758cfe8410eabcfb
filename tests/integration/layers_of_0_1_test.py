"""A data folder that version 0.1 wrote is served as version 0.1 served it, bit for bit.

tests/data/layers_of_0_1/ holds the folder, the requests that its server was asked and what it answered. Written by

    python3 tests/integration/layers_of_0_1_test.py --record ATTEND_SERVER_0_1
"""

import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import numpy as np
from google.protobuf import json_format

from attend_testing import checkpoints
from attend_testing.layers import embeddings, upload
from attend_testing.server import SOURCE_DIR, Server
from attend_testing.stubs import layers_pb, pb, tensor_pb2
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, QUERY, WEIGHTS, assert_same_bits, from_tensor, to_tensor

FIXTURE = SOURCE_DIR / "tests" / "data" / "layers_of_0_1"
RECORDED = FIXTURE / "recorded.json"
NAMES = ("alibi", "everything", "seeded")
TENSORS = ("output", "attention_weights", "log_sum_exp", "query")
# How the weights are packed is a matter of the machine.
OF_THE_MACHINE = {"memory_bytes"}


def layers():
    """{name: (header's fields, bytes, embedding size)}; scale, softcap and epsilon are numbers that float32 rounds."""
    layer = checkpoints.random_layer(np.random.default_rng(1), num_heads=2, num_kv_heads=1, head_dim=8, embed_dim=12, norms=True)
    rotary = layers_pb.RotaryEmbedding(
        base=5000,
        dim=6,
        llama3=layers_pb.Llama3Scaling(factor=8, low_freq_factor=1, high_freq_factor=4, original_context_length=4),
    )
    options = pb.AttentionOptions(
        float_scale=0.3,
        float_softcap=1.7,
        causal=pb.CAUSAL_MODE_BOTTOM_RIGHT,
        sliding_window_left=3,
        sliding_window_right=0,
        sinks=tensor_pb2.Tensor(shape=[2], values=[-0.5, 1.25]),
    )
    everything = layers_pb.LayerConfig(
        num_heads=2, num_kv_heads=1, float_norm_epsilon=0.01, rotary_embedding=rotary, options=options
    )
    slopes = pb.AttentionOptions(float_scale=0.7, alibi_slopes=to_tensor(np.array([0.1, 0.4]), data_type=tensor_pb2.DATA_TYPE_FLOAT16))
    llama, bert = checkpoints.NAMINGS["llama"], checkpoints.NAMINGS["bert"]
    plain = checkpoints.random_layer(np.random.default_rng(2), num_heads=2, num_kv_heads=2, head_dim=6, embed_dim=12)
    return {
        "everything": ({"config": everything, "prefix": "model.0"}, checkpoints.file_bytes(llama(layer, "model.0.")), 12),
        "alibi": (
            {"config": layers_pb.LayerConfig(num_heads=2, options=slopes)},
            checkpoints.file_bytes(bert(plain), "BF16"),
            12,
        ),
        "seeded": (
            {
                "init": layers_pb.SeededWeights(seed=7, embed_dim=16),
                "config": layers_pb.LayerConfig(num_heads=4, options=pb.AttentionOptions(float_softcap=0.9)),
            },
            b"",
            16,
        ),
    }


def record(binary):
    shutil.rmtree(FIXTURE, ignore_errors=True)
    recorded = {}
    with Server("--data-dir", str(FIXTURE), binary=binary) as server:
        for name, (fields, data, dim) in layers().items():
            layer = upload(server.layers, name, data, **fields)
            request = pb.AttendRequest(
                embeddings=to_tensor(embeddings(dim, tokens=9)),
                layer_name=name,
                position_offset=5 if name == "everything" else 0,
                outputs=[OUTPUT, WEIGHTS, LOG_SUM_EXP, QUERY],
            )
            messages = {"layer": layer, "request": request, "response": server.stub.Attend(request, timeout=60)}
            recorded[name] = {
                key: json_format.MessageToDict(message, preserving_proto_field_name=True) for key, message in messages.items()
            }
    RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


def read(recorded, name, key, message):
    return json_format.ParseDict(recorded[name][key], message)


class LayersOf01Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="attend-layers-of-0-1-")
        cls.addClassCleanup(directory.cleanup)
        cls.data = pathlib.Path(directory.name) / "data"
        shutil.copytree(FIXTURE, cls.data)
        cls.server = Server("--data-dir", str(cls.data))
        cls.addClassCleanup(cls.server.stop)
        cls.recorded = json.loads(RECORDED.read_text())

    def test_every_layer_is_served(self):
        found = self.server.layers.ListLayers(layers_pb.ListLayersRequest(), timeout=60).layers
        self.assertEqual(tuple(layer.name for layer in found), NAMES, self.server.log())
        self.assertEqual(tuple(sorted(self.recorded)), NAMES)

    def test_results_have_the_same_bits(self):
        for name in NAMES:
            request = read(self.recorded, name, "request", pb.AttendRequest())
            expected = read(self.recorded, name, "response", pb.AttendResponse())
            actual = self.server.stub.Attend(request, timeout=60)
            for tensor in TENSORS:
                with self.subTest(name, tensor=tensor):
                    self.assertTrue(expected.HasField(tensor))
                    assert_same_bits(from_tensor(getattr(actual, tensor)), from_tensor(getattr(expected, tensor)), f"{name} {tensor}")

    def test_layers_are_described_as_before(self):
        """Every field that version 0.1 filled; what is new may be there too."""
        for name in NAMES:
            with self.subTest(name):
                layer = self.server.layers.GetLayer(layers_pb.GetLayerRequest(name=name), timeout=60).layer
                expected = read(self.recorded, name, "layer", layers_pb.Layer())
                self.assert_says(layer, expected, name)
                self.assertEqual(layer.create_time.ToMilliseconds(), expected.create_time_ms)

    def test_double_options_have_the_values_that_were_stored(self):
        """0.1 stored float32 numbers: the doubles are those, not the decimal numbers that they were rounded from."""
        layer = self.server.layers.GetLayer(layers_pb.GetLayerRequest(name="everything"), timeout=60).layer
        self.assertEqual(layer.config.options.scale, float(np.float32(0.3)))
        self.assertEqual(layer.config.options.softcap, float(np.float32(1.7)))
        self.assertEqual(layer.config.norm_epsilon, float(np.float32(0.01)))

    def assert_says(self, actual, expected, path):
        for field, value in expected.ListFields():
            here = f"{path}.{field.name}"
            if field.name in OF_THE_MACHINE:
                continue
            if field.message_type is not None and field.label != field.LABEL_REPEATED:
                self.assert_says(getattr(actual, field.name), value, here)
            else:
                self.assertEqual(getattr(actual, field.name), value, here)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(sys.argv[2])
    else:
        unittest.main()
