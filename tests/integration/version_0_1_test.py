"""A client of version 0.1 against this server: what it asks for is what it gets."""

import unittest

import numpy as np
from google.protobuf import json_format

from attend_testing import checkpoints, oracle, tolerance, version_0_1
from attend_testing.layers import chunks, embeddings
from attend_testing.server import ServerTestCase
from attend_testing.stubs import layers_pb, pb
from attend_testing.tensors import assert_near, assert_same_bits, from_tensor, to_tensor

old = version_0_1.message
# Fields whose names went to a field of another type.
RENAMED = {
    ("AttentionOptions", 1): "float_scale",
    ("AttentionOptions", 5): "float_softcap",
    ("LayerConfig", 5): "float_norm_epsilon",
}


def old_tensor(array, **fields):
    return old("Tensor").FromString(to_tensor(np.asarray(array, np.float32), **fields).SerializeToString())


class DescriptorTest(unittest.TestCase):
    """What version 0.1 writes is read as what it meant, and the other way round."""

    def today(self, name):
        return pb.DESCRIPTOR.pool.FindMessageTypeByName(name)

    def test_every_field_has_its_number_and_type(self):
        seen = 0
        for file in version_0_1.FILES:
            for name, before in version_0_1.POOL.FindFileByName(file.name).message_types_by_name.items():
                if file.package != "attend.v1":
                    continue
                now = self.today(before.full_name)
                for number, field in before.fields_by_number.items():
                    with self.subTest(name, field=field.name):
                        self.assertIn(number, now.fields_by_number)
                        today = now.fields_by_number[number]
                        self.assertEqual((today.type, today.label), (field.type, field.label))
                        self.assertEqual(today.name, RENAMED.get((name, number), field.name))
                        if field.message_type is not None:
                            self.assertEqual(today.message_type.full_name, field.message_type.full_name)
                        seen += 1
        self.assertGreater(seen, 140)

    def test_every_enum_value_has_its_number(self):
        for file in version_0_1.FILES:
            for name, before in version_0_1.POOL.FindFileByName(file.name).enum_types_by_name.items():
                with self.subTest(name):
                    now = pb.DESCRIPTOR.pool.FindEnumTypeByName(before.full_name)
                    self.assertLessEqual(dict(before.values_by_name).keys(), dict(now.values_by_name).keys())
                    for value in before.values:
                        self.assertEqual(now.values_by_name[value.name].number, value.number)

    def test_every_method_is_there(self):
        for path, method in version_0_1.methods():
            with self.subTest(path):
                now = pb.DESCRIPTOR.pool.FindServiceByName(method.containing_service.full_name).methods_by_name[method.name]
                self.assertEqual(
                    (now.input_type.full_name, now.output_type.full_name), (method.input_type.full_name, method.output_type.full_name)
                )


class OldClientTest(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.old = version_0_1.Client(cls.server.channel)
        rng = np.random.default_rng(3)
        cls.query, cls.key, cls.value = (rng.standard_normal((1, 2, n, 8), dtype=np.float32) for n in (5, 9, 9))

    def options(self, **fields):
        return old("AttentionOptions")(**fields)

    def sdpa(self, options):
        request = old("ScaledDotProductAttentionRequest")(
            query=old_tensor(self.query), key=old_tensor(self.key), value=old_tensor(self.value), options=options
        )
        return self.old.ScaledDotProductAttention(request, timeout=60)

    def expect(self, response, **options):
        expected = oracle.attend(self.query, self.key, self.value, oracle.Options(**options)).output
        assert_near(from_tensor(response.output), expected, tolerance.attention(self.value), str(options))

    def test_scale_and_softcap(self):
        scale, softcap = np.float32(0.3), np.float32(1.7)
        self.expect(self.sdpa(self.options(scale=scale, softcap=softcap)), scale=float(scale), softcap=float(softcap))
        self.expect(self.sdpa(self.options(scale=0)), scale=0.0)

    def test_float_options_give_the_bits_of_the_same_doubles(self):
        response = self.sdpa(self.options(scale=0.3, softcap=1.7))
        doubles = pb.AttentionOptions(scale=float(np.float32(0.3)), softcap=float(np.float32(1.7)))
        request = pb.ScaledDotProductAttentionRequest(
            query=to_tensor(self.query), key=to_tensor(self.key), value=to_tensor(self.value), options=doubles
        )
        today = self.stub.ScaledDotProductAttention(request, timeout=60)
        assert_same_bits(from_tensor(response.output), from_tensor(today.output), "output")

    def test_every_other_option(self):
        """Masks, windows, causality, ALiBi and sinks in one request."""
        rng = np.random.default_rng(4)
        mask = rng.random((5, 9)) < 0.8
        bias, slopes, sinks = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 9), 2, 2))
        options = self.options(
            causal=pb.CAUSAL_MODE_BOTTOM_RIGHT,
            sliding_window_left=4,
            valid_lengths=[8],
            mask=old("Tensor").FromString(to_tensor(mask).SerializeToString()),
            bias=old_tensor(bias),
            alibi_slopes=old_tensor(slopes),
            sinks=old_tensor(sinks),
        )
        self.expect(
            self.sdpa(options),
            causal="bottom_right",
            left=4,
            valid_lengths=[8],
            mask=mask,
            bias=bias,
            alibi_slopes=slopes,
            sinks=sinks,
        )

    def layer(self):
        """A layer with norms, a rotary embedding and options; the old header, and the same in today's words."""
        weights = checkpoints.random_layer(np.random.default_rng(5), num_heads=2, num_kv_heads=1, head_dim=8, embed_dim=12, norms=True)
        rotary = {"base": 5000.0, "dim": 6}
        options = {"causal": "CAUSAL_MODE_BOTTOM_RIGHT", "sliding_window_left": 3}
        config = {"num_heads": 2, "num_kv_heads": 1, "norm_epsilon": 0.01, "rotary_embedding": rotary}
        header = {"name": "old", "config": {**config, "options": {**options, "scale": 0.3, "softcap": 1.7}}}
        numbers = {name: float(np.float32(value)) for name, value in (("scale", 0.3), ("softcap", 1.7), ("epsilon", 0.01))}
        doubles = {"scale": numbers["scale"], "softcap": numbers["softcap"]}
        today = {"name": "today", "config": {**config, "norm_epsilon": numbers["epsilon"], "options": {**options, **doubles}}}
        data = checkpoints.file_bytes(checkpoints.NAMINGS["llama"](weights))
        return json_format.ParseDict(header, old("CreateLayerHeader")()), json_format.ParseDict(today, layers_pb.CreateLayerHeader()), data

    def test_a_layer_is_what_was_uploaded(self):
        header, today, data = self.layer()
        chunk = [old("CreateLayerRequest")(header=header), old("CreateLayerRequest")(chunk=data)]
        created = self.old.CreateLayer(iter(chunk), timeout=60).layer
        self.stub_layers = self.server.layers
        self.stub_layers.CreateLayer(iter([layers_pb.CreateLayerRequest(header=today), *chunks(data)]), timeout=60)
        found = self.old.GetLayer(old("GetLayerRequest")(name="old"), timeout=60).layer
        self.assertEqual(found, created)
        listed = self.old.ListLayers(old("ListLayersRequest")(), timeout=60).layers
        self.assertEqual([layer.name for layer in listed], ["old", "today"])
        for layer in (found, *listed):
            with self.subTest(layer.name):
                self.assertEqual(layer.config.options.scale, np.float32(0.3))
                self.assertEqual(layer.config.options.softcap, np.float32(1.7))
                self.assertEqual(layer.config.norm_epsilon, np.float32(0.01))
                self.assertGreater(layer.create_time_ms, 1_700_000_000_000)
        tokens = embeddings(12, tokens=7)
        request = old("AttendRequest")(embeddings=old_tensor(tokens), layer_name="old", position_offset=3)
        output = from_tensor(self.old.Attend(request, timeout=60).output)
        same = pb.AttendRequest(embeddings=to_tensor(tokens), layer_name="today", position_offset=3)
        assert_same_bits(output, from_tensor(self.stub.Attend(same, timeout=60).output), "output")
        self.old.DeleteLayer(old("DeleteLayerRequest")(name="old", etag=found.etag), timeout=60)

    def test_streams(self):
        tokens = embeddings(8)
        requests = [
            old("StreamAttendRequest")(id=i, attend=old("AttendRequest")(embeddings=old_tensor(tokens), options=self.options(scale=scale)))
            for i, scale in enumerate((0.5, float("inf"), 0.25))
        ]
        answers = {answer.id: answer for answer in self.old.StreamAttend(iter(requests), timeout=60)}
        self.assertEqual(sorted(answers), [0, 1, 2])
        self.assertEqual((answers[1].status.code, answers[1].HasField("attend")), (3, False))
        self.assertIn("scale", answers[1].status.message)
        for i, scale in ((0, 0.5), (2, 0.25)):
            self.assertFalse(answers[i].HasField("status"))
            expected = oracle.attend(*(tokens[None, None],) * 3, oracle.Options(scale=scale)).output[0, 0]
            assert_near(from_tensor(answers[i].attend.output), expected, tolerance.attention(tokens), f"scale {scale}")

    def test_the_server_is_described(self):
        info = self.old.GetServerInfo(old("GetServerInfoRequest")(), timeout=60)
        self.assertTrue(info.version)
        self.assertGreater(info.limits.max_request_bytes, 0)


if __name__ == "__main__":
    unittest.main()
