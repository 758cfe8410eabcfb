"""EstimateCost: sums by hand, the sizes of real messages, and what real calls are refused with one below."""

import itertools
import unittest

import grpc
import numpy as np

from attend_testing.element_types import BF16, F16, F32, F64
from attend_testing.errors import call_failure
from attend_testing.layers import Weights, upload
from attend_testing.load import wait_until, wait_until_computing
from attend_testing.server import Server, ServerTestCase
from attend_testing.stubs import pb, tensor_pb2
from attend_testing.tensors import LOG_SUM_EXP, OUTPUT, PER_HEAD, SCORES, TOP, WEIGHTS, to_tensor

Code = grpc.StatusCode
SERVICE = "/attend.v1.AttentionService/"
RNG = np.random.default_rng(11)


def tensor(*shape, data_type=F32):
    return to_tensor(RNG.standard_normal(shape).astype(np.float32), data_type=data_type)


def sdpa(batch=2, heads=4, kv_heads=2, queries=5, keys=7, size=8, value_size=3, data_type=F32, **fields):
    return pb.ScaledDotProductAttentionRequest(
        query=tensor(batch, heads, queries, size, data_type=data_type),
        key=tensor(batch, kv_heads, keys, size, data_type=data_type),
        value=tensor(batch, kv_heads, keys, value_size, data_type=data_type),
        **fields,
    )


def linear(rows, columns):
    return pb.Linear(weight=tensor(rows, columns), bias=tensor(rows))


def attend(batch=2, queries=5, dim=8, keys=0, heads=4, kv_heads=2, size=6, value_size=2, out=10, **fields):
    layer = pb.AttentionLayer(
        query_projection=linear(heads * size, dim),
        key_projection=linear(kv_heads * size, dim),
        value_projection=linear(kv_heads * value_size, dim),
        num_heads=heads,
        num_kv_heads=kv_heads,
    )
    if out:
        layer.output_projection.CopyFrom(linear(out, heads * value_size))
    request = pb.AttendRequest(embeddings=tensor(batch, queries, dim), layer=layer, **fields)
    if keys:
        request.context.CopyFrom(tensor(batch, keys, dim))
    return request


def visible_pairs(options, batch, queries, keys, self_attention=False):
    """Counted one by one."""
    if options.cumulative_query_lengths:
        q, k = options.cumulative_query_lengths, options.cumulative_key_lengths or options.cumulative_query_lengths
        inner = pb.AttentionOptions()
        inner.CopyFrom(options)
        inner.ClearField("cumulative_query_lengths")
        inner.ClearField("cumulative_key_lengths")
        return sum(visible_pairs(inner, 1, q[n + 1] - q[n], k[n + 1] - k[n]) for n in range(len(q) - 1))
    pairs = 0
    for b in range(batch):
        valid = options.valid_lengths[b] if options.valid_lengths else keys
        valid_queries = options.valid_lengths[b] if options.valid_lengths and self_attention else queries
        offset = 0 if options.causal == pb.CAUSAL_MODE_TOP_LEFT else valid - valid_queries
        is_causal = options.causal in (pb.CAUSAL_MODE_TOP_LEFT, pb.CAUSAL_MODE_BOTTOM_RIGHT)
        for t, j in itertools.product(range(queries), range(valid)):
            position = t + offset
            pairs += not (
                (is_causal and j > position)
                or (options.HasField("sliding_window_left") and j < position - options.sliding_window_left)
                or (options.HasField("sliding_window_right") and j > position + options.sliding_window_right)
            )
    return pairs


def weight_flops(request, heads, batch, queries, keys):
    """Averaged and top weights: 32 for each, whatever options hide."""
    averaged = WEIGHTS in request.outputs and request.options.attention_weights_form != PER_HEAD
    if not averaged and TOP not in request.outputs:
        return 0
    nothing_hidden = pb.AttentionOptions()
    nothing_hidden.cumulative_query_lengths.extend(request.options.cumulative_query_lengths)
    nothing_hidden.cumulative_key_lengths.extend(request.options.cumulative_key_lengths)
    return 32 * heads * visible_pairs(nothing_hidden, batch, queries, keys)


def sdpa_flops(request):
    batch, heads, queries, size = request.query.shape
    keys, value_size = request.value.shape[2:]
    flops = 2 * (size + value_size) * heads * visible_pairs(request.options, batch, queries, keys)
    return flops + weight_flops(request, heads, batch, queries, keys)


def attend_flops(request):
    batch, queries, dim = request.embeddings.shape
    keys = request.context.shape[1] if request.HasField("context") else queries
    layer = request.layer
    rows = {name: getattr(layer, f"{name}_projection").weight.shape[0] for name in ("query", "key", "value")}
    per_head = rows["query"] // layer.num_heads + rows["value"] // layer.num_kv_heads
    is_self = not request.HasField("context")
    flops = 2 * per_head * layer.num_heads * visible_pairs(request.options, batch, queries, keys, is_self)
    flops += 2 * batch * dim * (queries * rows["query"] + keys * (rows["key"] + rows["value"]))
    if layer.HasField("output_projection"):
        out, inner = layer.output_projection.weight.shape
        flops += 2 * batch * queries * out * inner
    return flops + weight_flops(request, layer.num_heads, batch, queries, keys)


def described(message):
    """A copy whose tensors have types and shapes alone."""
    copy = type(message)()
    copy.CopyFrom(message)

    def strip(part):
        for field, value in part.ListFields():
            if field.type != field.TYPE_MESSAGE or field.label == field.LABEL_REPEATED:
                continue
            if isinstance(value, tensor_pb2.Tensor):
                value.ClearField("data")
                value.ClearField("values")
            else:
                strip(value)

    strip(copy)
    return copy


def estimate_of(message):
    if isinstance(message, pb.AttendRequest):
        return pb.EstimateCostRequest(attend=message)
    return pb.EstimateCostRequest(scaled_dot_product_attention=message)


def method_of(message):
    return "Attend" if isinstance(message, pb.AttendRequest) else "ScaledDotProductAttention"


def options(**fields):
    return pb.AttentionOptions(**fields)


CAUSAL = pb.CAUSAL_MODE_BOTTOM_RIGHT
ALL = (OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES)

SDPA_GRID = [
    *(sdpa(queries=q, keys=k, options=options(causal=c)) for q, k, c in itertools.product((1, 5, 9), (1, 7), (0, 1, 2, 3))),
    *(sdpa(options=options(sliding_window_left=a, sliding_window_right=b)) for a, b in itertools.product((0, 2, 1 << 62), repeat=2)),
    *(sdpa(queries=7, options=options(valid_lengths=v, causal=c)) for v, c in itertools.product(((0, 7), (3, 4)), (0, 1))),
    *(sdpa(data_type=t, outputs=ALL) for t in (F16, BF16, F64)),
    sdpa(batch=1, queries=7, options=options(cumulative_query_lengths=(0, 3, 3, 7), cumulative_key_lengths=(0, 1, 5, 7), causal=CAUSAL)),
    sdpa(outputs=(OUTPUT, TOP), options=options(top_k=3)),
    sdpa(outputs=ALL, options=options(attention_weights_form=PER_HEAD, mask=to_tensor(np.ones((5, 7), bool)))),
    sdpa(options=options(mask=tensor_pb2.Tensor(shape=(5, 7), data=b"\1" * 35), bias=tensor(2, 4, 5, 7), sinks=tensor(4))),
    sdpa(batch=1, queries=300, keys=200, size=64, value_size=64),
]  # fmt: skip
ATTEND_GRID = [
    attend(),
    attend(out=0, outputs=(*ALL, pb.OUTPUT_KIND_QUERY, pb.OUTPUT_KIND_KEY, pb.OUTPUT_KIND_VALUE)),
    attend(keys=9, options=options(causal=CAUSAL)),
    attend(options=options(valid_lengths=(2, 5), causal=CAUSAL)),
    attend(heads=1, kv_heads=1, queries=200, dim=64, size=64, value_size=64),
]


class EstimateTest(ServerTestCase):
    def estimate(self, message):
        return self.stub.EstimateCost(estimate_of(message), timeout=60)

    def raw_response(self, message):
        call = self.server.channel.unary_unary(SERVICE + method_of(message))
        return call(message.SerializeToString(), timeout=60)

    def test_sums_by_hand_and_sizes_of_real_messages(self):
        for i, message in enumerate(SDPA_GRID + ATTEND_GRID):
            with self.subTest(case=i, method=method_of(message)):
                cost = self.estimate(described(message))
                expected = attend_flops(message) if method_of(message) == "Attend" else sdpa_flops(message)
                self.assertEqual(cost.flops, expected)
                self.assertEqual(cost.request_bytes, message.ByteSize())
                self.assertEqual(cost.response_bytes, len(self.raw_response(message)))
                self.assertGreater(cost.memory_bytes, cost.response_bytes)
                self.assertTrue(cost.admissible)
                self.assertEqual((cost.limit, cost.description), ("", ""))
                self.assertEqual(cost.predicted_milliseconds > 0, True)
                full = self.estimate(message)
                full.predicted_milliseconds = cost.predicted_milliseconds  # It follows what the calls since have taken.
                self.assertEqual(full, cost)

    def test_tensors_in_values_are_counted_as_data(self):
        message = sdpa()
        values = pb.ScaledDotProductAttentionRequest()
        values.CopyFrom(message)
        for part in (values.query, values.key, values.value):
            part.values.extend(np.frombuffer(part.data, "<f4"))
            part.ClearField("data")
        self.assertEqual(self.estimate(values).request_bytes, message.ByteSize())

    def test_work_that_is_more_is_predicted_to_take_longer(self):
        small, large = (self.estimate(described(sdpa(queries=q, keys=512, size=64))) for q in (16, 2048))
        self.assertGreater(large.predicted_milliseconds, 10 * small.predicted_milliseconds)

    def test_a_named_layer(self):
        weights = Weights(5, heads=2)
        layer = upload(self.server.layers, "estimated", weights.file(), config=weights.config())
        named = pb.AttendRequest(embeddings=tensor(3, 16), layer_name="estimated", layer_etag=layer.etag)
        cost = self.estimate(described(named))
        self.assertEqual(cost.flops, 3 * 2 * 3 * 16 * 16 + 2 * (8 + 8) * 2 * 3 * 3)
        self.assertEqual(cost.request_bytes, named.ByteSize())
        self.assertEqual(cost.response_bytes, len(self.raw_response(named)))

    def test_what_the_call_refuses_is_refused_with_the_same_words(self):
        short, both, enum, lengths, missing = sdpa(), sdpa(), sdpa(), sdpa(), sdpa()
        short.key.data = short.key.data[:-1]
        both.query.values.append(1)
        enum.options.causal = 17
        lengths.options.valid_lengths.extend((8, 1))
        missing.ClearField("value")
        ragged = sdpa(batch=1, options=options(cumulative_query_lengths=(0, 5), cumulative_key_lengths=(0, 6)))
        unequal = sdpa()
        unequal.key.shape[3] = unequal.query.shape[3] + 1
        unequal.key.data += b"\0" * (4 * 2 * 2 * 7)
        no_layer = pb.AttendRequest(embeddings=tensor(2, 4), layer_name="nowhere")
        no_name = pb.AttendRequest(embeddings=tensor(2, 4), layer_etag="0")
        outputs = sdpa(outputs=(pb.OUTPUT_KIND_QUERY,))
        for i, message in enumerate((short, both, enum, lengths, missing, ragged, unequal, no_layer, no_name, outputs)):
            with self.subTest(case=i):
                real = call_failure(getattr(self.stub, method_of(message)), message)
                failure = call_failure(self.stub.EstimateCost, estimate_of(message))
                self.assertEqual(
                    (failure.code, failure.reason, failure.message, failure.violations),
                    (real.code, real.reason, real.message, real.violations),
                )
                if message not in (short, both):
                    without = call_failure(self.stub.EstimateCost, estimate_of(described(message)))
                    self.assertEqual((without.message, without.violations), (real.message, real.violations))

    def test_a_message_without_a_request(self):
        failure = call_failure(self.stub.EstimateCost, pb.EstimateCostRequest())
        self.assertEqual((failure.code, failure.fields), (Code.INVALID_ARGUMENT, ["request"]))

    def test_only_estimates_take_tensors_without_contents(self):
        for message in (sdpa(), attend()):
            failure = call_failure(getattr(self.stub, method_of(message)), described(message))
            self.assertEqual(failure.code, Code.INVALID_ARGUMENT)
            self.assertIn("has neither data nor values", failure.message)

    def test_messages_are_bounded(self):
        failure = call_failure(self.stub.EstimateCost, estimate_of(sdpa(queries=1, keys=1, size=1 << 17)))
        self.assertEqual((failure.code, failure.reason), (Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"))

    def test_shapes_that_nobody_can_send(self):
        def shapes(query, key, value, **fields):
            parts = [tensor_pb2.Tensor(shape=shape) for shape in (query, key, value)]
            return pb.ScaledDotProductAttentionRequest(query=parts[0], key=parts[1], value=parts[2], **fields)

        cost = self.estimate(shapes((1 << 40, 8), (1 << 10, 8), (1 << 10, 8)))
        self.assertEqual(cost.flops, 2.0**40 * 2**10 * 32)
        self.assertEqual((cost.admissible, cost.limit), (False, "max_request_bytes"))
        cost = self.estimate(shapes((1, 1 << 58), (1, 1 << 58), (1, 1 << 58)))
        self.assertFalse(cost.admissible)
        narrow = shapes((1, 1), (1, 1), (1, 1 << 57))
        narrow.value.data_type = F16
        self.assertGreater(self.estimate(narrow).memory_bytes, 1 << 60)
        # A layer of more bytes than 64 bits count.
        weight = [tensor_pb2.Tensor(data_type=F64, shape=shape) for shape in ((1 << 20, 1 << 39), (1 << 39, 1 << 20))]
        projections = {f"{name}_projection": pb.Linear(weight=weight[name == "output"]) for name in ("query", "key", "value", "output")}
        projections["output_projection"].bias.CopyFrom(tensor_pb2.Tensor(data_type=F64, shape=[1 << 39]))
        embeddings = tensor_pb2.Tensor(data_type=F64, shape=(1, 1 << 39))
        cost = self.estimate(pb.AttendRequest(embeddings=embeddings, layer=pb.AttentionLayer(num_heads=1, **projections)))
        self.assertEqual((cost.request_bytes, cost.memory_bytes), (2**63 - 1, 2**63 - 1))
        for message in (
            shapes((1 << 58, 1), (1 << 58, 1), (1 << 58, 1)),
            shapes((1 << 62, 8), (1, 8), (1, 8)),
            shapes((1 << 50, 1), (1, 1), (1, 1), outputs=(TOP,), options=options(top_k=1 << 20)),
        ):
            self.assertEqual(call_failure(self.stub.EstimateCost, estimate_of(message)).code, Code.INVALID_ARGUMENT)


class LimitTest(unittest.TestCase):
    def test_each_limit_admits_what_it_says_and_no_more(self):
        message = sdpa(queries=40, keys=50, size=32, value_size=48)
        with Server() as server:
            cost = server.stub.EstimateCost(estimate_of(described(message)), timeout=60)
        for limit, value in (
            ("max_request_bytes", cost.request_bytes),
            ("max_response_bytes", cost.response_bytes),
            ("max_request_memory_bytes", cost.memory_bytes),
            ("max_request_flops", cost.flops),
            ("max_memory_in_flight_bytes", cost.memory_bytes),
        ):
            flag = "--" + limit.replace("_", "-")
            with self.subTest(limit=limit):
                with Server(flag, f"{value:.0f}") as server:
                    # First: an estimate that was answered a moment ago may still take a few bytes of all the memory.
                    server.stub.ScaledDotProductAttention(message, timeout=60)
                    self.assertTrue(server.stub.EstimateCost(estimate_of(described(message)), timeout=60).admissible)
                with Server(flag, f"{value - 1:.0f}") as server:
                    refused = server.stub.EstimateCost(estimate_of(described(message)), timeout=60)
                    self.assertEqual((refused.admissible, refused.limit), (False, limit))
                    failure = call_failure(server.stub.ScaledDotProductAttention, message)
                    self.assertEqual(failure.code, Code.RESOURCE_EXHAUSTED)
                    if failure.reason:  # Too large a message may be gRPC's to refuse, which gives no reason.
                        self.assertEqual(failure.metadata["flag"], flag)
                        self.assertEqual(refused.description, failure.message)
                    else:
                        self.assertEqual(limit, "max_request_bytes")

    def test_a_busy_server_answers(self):
        endless = pb.AttendRequest(embeddings=to_tensor(np.zeros((1 << 20, 1), np.float32)))
        with Server("--threads", "1", "--max-queued-requests", "1") as server:
            # Without a deadline: a slow machine would refuse at once what it could not finish by then.
            calls = [server.stub.Attend.future(endless) for _ in range(2)]
            wait_until_computing(server)
            # One that no server could do by then, so that it takes no place that is still free.
            wait_until(lambda: call_failure(server.stub.Attend, endless, timeout=1).reason == "QUEUE_FULL", "the queue is full")
            for message in (sdpa(), attend(), described(sdpa(queries=1 << 14, keys=4))):
                self.assertGreater(server.stub.EstimateCost(estimate_of(message), timeout=60).flops, 0)
            large = estimate_of(sdpa(queries=1 << 12, keys=4, size=4, heads=2))  # More than polling threads decode.
            self.assertGreater(large.ByteSize(), 1 << 17)
            self.assertGreater(server.stub.EstimateCost(large, timeout=60).flops, 0)
            for call in calls:
                call.cancel()


if __name__ == "__main__":
    unittest.main()
