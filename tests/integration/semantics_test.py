"""What every option and output means, measured against the float64 oracle."""

import unittest

import numpy as np

from attend_testing import oracle, tolerance
from attend_testing.oracle import Options
from attend_testing.requests import sdpa_request, to_layer, to_options
from attend_testing.server import ServerTestCase
from attend_testing.stubs import pb
from attend_testing.tensors import (
    KEY,
    LOG_SUM_EXP,
    OUTPUT,
    QUERY,
    SCORES,
    VALUE,
    WEIGHTS,
    assert_near,
    assert_same_bits,
    from_tensor,
    tensors_of,
    to_tensor,
)

NEGATIVE = -np.inf
INT64_MAX = 2**63 - 1


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def float32(number):
    """The float32 nearest to `number`, as the wire carries it."""
    return float(np.float32(number))


def random_mask(*shape):
    return np.random.default_rng(7).random(shape) < 0.6


def random_bias(*shape):
    return normal(np.random.default_rng(8), *shape)


def masked_rows(queries, keys, rows):
    mask = np.ones((queries, keys), bool)
    mask[rows] = False
    return mask


# Name: (B, H, K, T, S, E, V, options).
CASES = {
    "one_of_everything": (1, 1, 1, 1, 1, 1, 1, Options()),
    "one_query": (1, 2, 2, 1, 9, 8, 8, Options()),
    "one_key": (1, 2, 2, 9, 1, 8, 8, Options()),
    "head_size_one": (2, 2, 2, 6, 7, 1, 1, Options()),
    "odd_head_size": (1, 2, 2, 5, 6, 7, 3, Options()),
    "head_size_beside_a_vector": (1, 1, 1, 17, 33, 65, 63, Options()),
    "value_wider_than_key": (1, 2, 2, 5, 6, 8, 40, Options()),
    "fewer_queries_than_keys": (2, 2, 2, 7, 33, 16, 16, Options()),
    "more_queries_than_keys": (2, 2, 2, 33, 7, 16, 16, Options()),
    "grouped_queries": (2, 8, 2, 9, 11, 16, 16, Options()),
    "multi_query": (1, 4, 1, 9, 11, 16, 16, Options()),
    "several_key_blocks": (1, 1, 1, 3, 2100, 32, 32, Options()),
    "several_query_blocks": (1, 1, 1, 300, 70, 32, 32, Options(causal="bottom_right")),
    "scale": (1, 2, 2, 5, 6, 8, 8, Options(scale=float32(0.7))),
    "scale_zero_gives_the_mean": (1, 1, 1, 5, 6, 8, 8, Options(scale=0.0)),
    "scale_negative": (1, 1, 1, 5, 6, 8, 8, Options(scale=-0.25)),
    "causal_bottom_right_square": (2, 2, 2, 9, 9, 8, 8, Options(causal="bottom_right")),
    "causal_bottom_right_wide": (1, 2, 2, 4, 9, 8, 8, Options(causal="bottom_right")),
    "causal_bottom_right_tall_masks_the_first_rows": (1, 2, 2, 9, 4, 8, 8, Options(causal="bottom_right")),
    "causal_top_left_wide": (1, 2, 2, 4, 9, 8, 8, Options(causal="top_left")),
    "causal_top_left_tall": (1, 2, 2, 9, 4, 8, 8, Options(causal="top_left")),
    "window_left": (1, 2, 2, 9, 9, 8, 8, Options(left=2)),
    "window_right": (1, 2, 2, 9, 9, 8, 8, Options(right=1)),
    "window_both_zero_sees_itself": (1, 1, 1, 9, 9, 8, 8, Options(left=0, right=0)),
    "window_and_causal": (1, 2, 2, 40, 90, 8, 8, Options(left=5, right=9, causal="bottom_right")),
    "window_top_left": (1, 2, 2, 4, 9, 8, 8, Options(left=1, causal="top_left")),
    "window_outside_all_keys": (1, 1, 1, 9, 4, 8, 8, Options(left=1, right=1)),
    "window_of_the_largest_integer": (1, 1, 1, 4, 9, 8, 8, Options(left=INT64_MAX, right=INT64_MAX)),
    "softcap": (1, 2, 2, 5, 6, 8, 8, Options(softcap=0.5)),
    "softcap_wide": (1, 2, 2, 5, 6, 8, 8, Options(softcap=50.0, scale=2.0)),
    "mask_shared": (2, 2, 2, 7, 9, 8, 8, Options(mask=random_mask(7, 9))),
    "mask_full": (2, 3, 3, 7, 9, 8, 8, Options(mask=random_mask(2, 3, 7, 9))),
    "mask_per_batch": (3, 2, 2, 7, 9, 8, 8, Options(mask=random_mask(3, 1, 1, 9))),
    "mask_per_head_and_query": (2, 3, 3, 7, 9, 8, 8, Options(mask=random_mask(1, 3, 7, 1))),
    "mask_of_whole_rows": (1, 1, 1, 7, 9, 8, 8, Options(mask=masked_rows(7, 9, [0, 3, 6]))),
    "mask_of_everything": (1, 2, 2, 3, 4, 8, 8, Options(mask=np.zeros((3, 4), bool))),
    "key_mask": (3, 2, 2, 7, 9, 8, 8, Options(key_mask=random_mask(3, 9))),
    "key_mask_for_all_batch_entries": (2, 2, 2, 7, 9, 8, 8, Options(key_mask=random_mask(9))),
    "key_mask_of_whole_entries": (3, 2, 1, 7, 9, 8, 8, Options(key_mask=np.array([[True], [False], [True]]))),
    "key_mask_pads_at_the_front_and_positions_count_it": (
        2, 2, 2, 9, 9, 8, 8,
        Options(key_mask=np.arange(9) >= np.array([[0], [5]]), causal="bottom_right", left=4,
                alibi_slopes=np.array([0.5, 0.25])),
    ),
    "key_mask_and_mask_and_lengths": (
        2, 2, 2, 7, 70, 8, 8, Options(key_mask=random_mask(2, 70), mask=random_mask(1, 2, 7, 70), valid_lengths=[70, 41]),
    ),
    "bias_shared": (2, 2, 2, 7, 9, 8, 8, Options(bias=random_bias(7, 9))),
    "bias_full": (2, 3, 3, 7, 9, 8, 8, Options(bias=random_bias(2, 3, 7, 9))),
    "bias_per_head_and_key": (2, 3, 3, 7, 9, 8, 8, Options(bias=random_bias(1, 3, 1, 9))),
    "bias_of_minus_infinity_masks": (1, 1, 1, 3, 4, 8, 8, Options(bias=np.where(random_mask(3, 4), 0, NEGATIVE))),
    "bias_of_minus_infinity_everywhere": (1, 1, 1, 3, 4, 8, 8, Options(bias=np.full((3, 4), NEGATIVE))),
    "bias_after_softcap": (1, 1, 1, 7, 9, 8, 8, Options(bias=random_bias(7, 9), softcap=0.25)),
    "alibi": (2, 4, 4, 7, 9, 8, 8, Options(alibi_slopes=np.array([0.5, 0.25, 0.125, 0.0]))),
    "alibi_causal": (1, 2, 2, 9, 9, 8, 8, Options(alibi_slopes=np.array([0.5, 0.25]), causal="bottom_right")),
    "alibi_top_left": (1, 2, 2, 4, 9, 8, 8, Options(alibi_slopes=np.array([0.5, -0.25]), causal="top_left")),
    "sinks": (2, 4, 2, 7, 9, 8, 8, Options(sinks=np.array([0.0, 1.5, -3.0, 4.0]))),
    "sinks_above_all_scores": (1, 1, 1, 7, 9, 8, 8, Options(sinks=np.array([60.0]))),
    "sinks_of_minus_infinity_do_nothing": (1, 1, 1, 7, 9, 8, 8, Options(sinks=np.array([NEGATIVE]))),
    "sinks_on_masked_rows": (1, 1, 1, 3, 4, 8, 8, Options(sinks=np.array([1.0]), mask=masked_rows(3, 4, [1]))),
    "lengths": (4, 2, 2, 5, 9, 8, 8, Options(valid_lengths=[9, 0, 1, 5])),
    "lengths_causal_as_a_cache_needs_it": (
        3, 2, 2, 3, 9, 8, 8, Options(valid_lengths=[9, 2, 5], causal="bottom_right"),
    ),
    "lengths_window": (2, 2, 2, 3, 9, 8, 8, Options(valid_lengths=[9, 5], left=2, right=0)),
    "everything_at_once": (
        2, 4, 2, 37, 70, 24, 20,
        Options(scale=0.25, softcap=4.0, causal="bottom_right", left=30, right=3, valid_lengths=[70, 41],
                mask=random_mask(2, 1, 37, 70), bias=random_bias(1, 4, 37, 70),
                alibi_slopes=np.array([0.5, 0.25, 0.125, 0.0625]), sinks=np.array([0.5, -1.0, 2.0, 0.0])),
    ),
}


class ScaledDotProductTest(ServerTestCase):
    def check(self, query, key, value, options, axes=4, form="data"):
        """Everything the service returns, per head and averaged; with 2, 3 or 4 axes."""
        expected = oracle.attend(query, key, value, options)
        index = (0,) * (4 - axes)
        outputs = [OUTPUT, WEIGHTS, LOG_SUM_EXP, SCORES]
        arrays = query[index], key[index], value[index]
        answer = self.stub.ScaledDotProductAttention(
            sdpa_request(*arrays, options, outputs, form, per_head=True), timeout=60
        )
        near = {
            "output": (expected.output, tolerance.attention(value)),
            "attention_weights": (expected.weights, tolerance.WEIGHTS),
            "log_sum_exp": (expected.log_sum_exp, tolerance.LOG_SUM_EXP),
            "scores": (expected.scores, tolerance.scores(query, key, options)),
        }
        for name, (array, allowed) in near.items():
            assert_near(from_tensor(getattr(answer, name)), array[index], allowed, name)
        averaged = self.stub.ScaledDotProductAttention(sdpa_request(*arrays, options, [WEIGHTS], form), timeout=60)
        mean = expected.weights.mean(axis=1)
        assert_near(
            from_tensor(averaged.attention_weights), mean if axes == 4 else mean[0], tolerance.WEIGHTS, "averaged weights"
        )

    def test_every_option_against_float64(self):
        for number, (name, (b, h, k, t, s, e, v, options)) in enumerate(CASES.items()):
            rng = np.random.default_rng(number)
            with self.subTest(name):
                self.check(normal(rng, b, h, t, e), normal(rng, b, k, s, e), normal(rng, b, k, s, v), options)

    def test_values_form(self):
        b, h, k, t, s, e, v, options = CASES["everything_at_once"]
        rng = np.random.default_rng(1)
        self.check(normal(rng, b, h, t, e), normal(rng, b, k, s, e), normal(rng, b, k, s, v), options, form="values")

    def test_fewer_axes(self):
        rng = np.random.default_rng(2)
        for axes, heads in ((2, 1), (3, 4)):
            with self.subTest(axes=axes):
                shape = 1, heads, 9, 8
                arrays = normal(rng, *shape), normal(rng, *shape), normal(rng, *shape)
                self.check(*arrays, Options(causal="bottom_right", valid_lengths=[7]), axes=axes)

    def test_a_masked_key_cannot_influence_not_even_with_nan(self):
        rng = np.random.default_rng(3)
        query, key, value = (normal(rng, 2, 2, 6, 8) for _ in range(3))
        mask = np.ones((1, 1, 1, 6), bool)
        mask[..., [1, 4]] = False
        ways = {
            "mask": Options(mask=mask),
            "bias": Options(bias=np.where(mask, 0, NEGATIVE)),
            "lengths": Options(valid_lengths=[3, 3]),
            "key_mask": Options(key_mask=mask[0, 0, 0]),
            "window": Options(left=0, right=0, causal="top_left"),
        }
        for name, options in ways.items():
            hidden = {"lengths": [3, 4, 5], "window": [3]}.get(name, [1, 4])
            request = sdpa_request(query, key, value, options, [OUTPUT, WEIGHTS, LOG_SUM_EXP], per_head=True)
            clean = self.stub.ScaledDotProductAttention(request, timeout=60)
            for poison in (np.nan, np.inf, -np.inf):
                with self.subTest(name, poison=poison):
                    bad_key, bad_value = key.copy(), value.copy()
                    # A score of NaN plus a bias of -Infinity is NaN by IEEE 754: there only the value is poisoned.
                    if name != "bias":
                        bad_key[:, :, hidden] = poison
                    bad_value[:, :, hidden] = poison
                    request = sdpa_request(query, bad_key, bad_value, options, [OUTPUT, WEIGHTS, LOG_SUM_EXP], per_head=True)
                    dirty = self.stub.ScaledDotProductAttention(request, timeout=60)
                    rows = slice(None) if name != "window" else [0, 1, 2, 4, 5]
                    for output in ("output", "attention_weights", "log_sum_exp"):
                        one, other = from_tensor(getattr(dirty, output)), from_tensor(getattr(clean, output))
                        assert_same_bits(one[:, :, rows].copy(), other[:, :, rows].copy(), f"{name} {output}")

    def test_nan_and_infinity_that_are_visible_propagate(self):
        rng = np.random.default_rng(4)
        query, key, value = (normal(rng, 1, 1, 4, 8) for _ in range(3))
        bad_query, bad_value = query.copy(), value.copy()
        bad_query[0, 0, 2, 0] = np.nan
        output = from_tensor(
            self.stub.ScaledDotProductAttention(sdpa_request(bad_query, key, value), timeout=60).output
        )
        self.assertEqual(list(np.isnan(output).all(axis=-1)[0, 0]), [False, False, True, False])
        self.assertFalse(np.isnan(output[0, 0, [0, 1, 3]]).any(), "a row of its own")
        bad_value[0, 0, 1, 3] = np.inf
        output = from_tensor(
            self.stub.ScaledDotProductAttention(sdpa_request(query, key, bad_value), timeout=60).output
        )
        self.assertTrue(np.isposinf(output[..., 3]).all())
        self.assertTrue(np.isfinite(np.delete(output, 3, axis=-1)).all())

    def test_only_what_is_asked_for_is_returned(self):
        rng = np.random.default_rng(5)
        arrays = [normal(rng, 4, 8) for _ in range(3)]
        names = {OUTPUT: "output", WEIGHTS: "attention_weights", LOG_SUM_EXP: "log_sum_exp", SCORES: "scores"}
        for kinds in ([], [OUTPUT], [WEIGHTS], [LOG_SUM_EXP], [SCORES], [SCORES, SCORES, WEIGHTS]):
            with self.subTest(kinds):
                answer = self.stub.ScaledDotProductAttention(sdpa_request(*arrays, outputs=kinds), timeout=60)
                present = set(tensors_of(answer))
                self.assertEqual(present, {names[kind] for kind in kinds or [OUTPUT]})


def random_layer(rng, d, d_context, heads, kv_heads, e, v, d_out=None, biases=True):
    def linear(rows, columns):
        bias = normal(rng, rows) if biases else None
        return normal(rng, rows, columns) / np.float32(np.sqrt(columns)), bias

    layer = {
        "query": linear(heads * e, d),
        "key": linear(kv_heads * e, d_context),
        "value": linear(kv_heads * v, d_context),
    }
    if d_out:
        layer["output"] = linear(d_out, heads * v)
    return layer


# Name: (B, T, S or None for self-attention, D, D', H, K, E, V, D_out or None, biases, options).
LAYERS = {
    "one_head": (1, 7, None, 12, 12, 1, 1, 12, 12, None, True, Options()),
    "no_biases": (2, 7, None, 12, 12, 3, 3, 4, 4, 12, False, Options()),
    "heads_without_output_projection": (2, 7, None, 12, 12, 3, 3, 5, 6, None, True, Options()),
    "output_projection_to_another_size": (2, 7, None, 12, 12, 3, 3, 5, 6, 31, True, Options()),
    "grouped_queries": (2, 7, None, 12, 12, 6, 2, 8, 4, 12, True, Options()),
    "cross": (2, 7, 19, 12, 20, 4, 4, 8, 8, 12, True, Options()),
    "cross_causal_lengths": (
        3, 4, 19, 12, 20, 4, 2, 8, 8, 12, True, Options(causal="bottom_right", valid_lengths=[19, 3, 0]),
    ),
    "self_causal_lengths_count_the_queries_too": (
        3, 9, None, 12, 12, 2, 2, 8, 8, 12, True, Options(causal="bottom_right", valid_lengths=[9, 4, 0]),
    ),
    "self_window_lengths_alibi": (
        2, 9, None, 12, 12, 2, 2, 8, 8, 12, True,
        Options(left=2, right=1, valid_lengths=[9, 4], alibi_slopes=np.array([0.5, 0.25])),
    ),
    "self_key_mask": (
        2, 9, None, 12, 12, 4, 2, 8, 8, 12, True, Options(key_mask=random_mask(2, 9), causal="bottom_right"),
    ),
    "cross_key_mask": (2, 4, 19, 12, 20, 4, 2, 8, 8, 12, True, Options(key_mask=random_mask(2, 19))),
    "wide": (1, 70, None, 130, 130, 2, 2, 65, 65, 130, True, Options(causal="top_left", softcap=3.0)),
}


class LayerTest(ServerTestCase):
    def test_every_output_of_a_layer_against_float64(self):
        for number, (name, case) in enumerate(LAYERS.items()):
            with self.subTest(name):
                self.check(np.random.default_rng(number), *case)

    def check(self, rng, b, t, s, d, d_context, heads, kv_heads, e, v, d_out, biases, options):
        embeddings = normal(rng, b, t, d)
        context = None if s is None else normal(rng, b, s, d_context)
        layer = random_layer(rng, d, d_context, heads, kv_heads, e, v, d_out, biases)
        source = embeddings if context is None else context
        query = oracle.split_heads(oracle.project(embeddings, *layer["query"]), heads)
        key = oracle.split_heads(oracle.project(source, *layer["key"]), kv_heads)
        value = oracle.split_heads(oracle.project(source, *layer["value"]), kv_heads)
        result = oracle.attend(query, key, value, options, self_attention=context is None)
        output, allowed = oracle.merge_heads(result.output), tolerance.attention(value)
        if d_out:
            allowed = tolerance.projection(output, *layer["output"], allowed)
            output = oracle.project(output, *layer["output"])

        request = pb.AttendRequest(
            embeddings=to_tensor(embeddings),
            layer=to_layer(layer, heads, None if kv_heads == heads else kv_heads),
            options=to_options(options, per_head=True),
            outputs=[OUTPUT, WEIGHTS, LOG_SUM_EXP, QUERY, KEY, VALUE, SCORES],
        )
        if context is not None:
            request.context.CopyFrom(to_tensor(context))
        answer = self.stub.Attend(request, timeout=60)
        assert_near(from_tensor(answer.output), output, allowed, "output")
        for name, expected in (("query", query), ("key", key), ("value", value)):
            assert_near(from_tensor(getattr(answer, name)), expected, tolerance.attention(expected), name)
        assert_near(from_tensor(answer.attention_weights), result.weights, tolerance.WEIGHTS, "weights")
        assert_near(from_tensor(answer.log_sum_exp), result.log_sum_exp, tolerance.LOG_SUM_EXP, "log-sum-exp")
        # Query and key are themselves rounded.
        score_tolerance = 2 * tolerance.scores(query, key, options) + 2 * tolerance.attention(query)
        assert_near(from_tensor(answer.scores), result.scores, score_tolerance, "scores")

    def test_without_a_layer_the_embeddings_attend_to_themselves(self):
        rng = np.random.default_rng(6)
        for shape in ((5, 8), (3, 5, 8)):
            with self.subTest(shape):
                x = normal(rng, *shape)
                answer = self.stub.Attend(
                    pb.AttendRequest(embeddings=to_tensor(x), outputs=[OUTPUT, WEIGHTS, QUERY, KEY, VALUE]), timeout=60
                )
                heads = x.reshape(-1, 1, 5, 8)
                expected = oracle.attend(heads, heads, heads)
                assert_near(from_tensor(answer.output), expected.output.reshape(shape), tolerance.attention(x), "output")
                weights = expected.weights.reshape(*shape[:-1], 5)
                assert_near(from_tensor(answer.attention_weights), weights, tolerance.WEIGHTS, "weights")
                for name in ("query", "key", "value"):
                    as_heads = x[None] if x.ndim == 2 else x[:, None]
                    assert_same_bits(from_tensor(getattr(answer, name)), as_heads, name)

    def test_without_a_layer_a_context_is_looked_at(self):
        rng = np.random.default_rng(7)
        x, context = normal(rng, 2, 5, 8), normal(rng, 2, 11, 8)
        answer = self.stub.Attend(pb.AttendRequest(embeddings=to_tensor(x), context=to_tensor(context)), timeout=60)
        expected = oracle.attend(x[:, None], context[:, None], context[:, None]).output[:, 0]
        assert_near(from_tensor(answer.output), expected, tolerance.attention(context), "output")

    def test_only_what_is_asked_for_is_returned(self):
        x = to_tensor(normal(np.random.default_rng(8), 4, 8))
        names = {OUTPUT: "output", WEIGHTS: "attention_weights", LOG_SUM_EXP: "log_sum_exp", SCORES: "scores"}
        names |= {QUERY: "query", KEY: "key", VALUE: "value"}
        for kinds in ([], *([kind] for kind in names), [VALUE, VALUE, SCORES]):
            with self.subTest(kinds):
                answer = self.stub.Attend(pb.AttendRequest(embeddings=x, outputs=kinds), timeout=60)
                present = set(tensors_of(answer))
                self.assertEqual(present, {names[kind] for kind in kinds or [OUTPUT]})


class RangeTest(ServerTestCase):
    def test_large_scores_neither_overflow_nor_lose_the_winner(self):
        """Scores up to about 1e6: exp() of them overflows, exp() of their differences does not."""
        rng = np.random.default_rng(9)
        query, key, value = 300 * normal(rng, 4, 64), 300 * normal(rng, 9, 64), normal(rng, 9, 64)
        answer = self.stub.ScaledDotProductAttention(
            sdpa_request(query, key, value, outputs=[OUTPUT, WEIGHTS]), timeout=60
        )
        winner = (query.astype(np.float64) @ key.astype(np.float64).T).argmax(axis=-1)
        assert_near(from_tensor(answer.attention_weights), np.eye(9)[winner], 1e-6, "weights")
        assert_near(from_tensor(answer.output), value[winner], tolerance.attention(value), "output")

    def test_denormal_and_huge_values_pass_through(self):
        value = np.array([[1e-40, 1e38], [1e-40, 1e38]], np.float32)
        answer = self.stub.ScaledDotProductAttention(
            sdpa_request(np.zeros((1, 2), np.float32), np.zeros((2, 2), np.float32), value), timeout=60
        )
        assert_near(from_tensor(answer.output) / value[:1], np.ones((1, 2)), 1e-4, "output / value")


if __name__ == "__main__":
    unittest.main()
