"""The cost that the Python package tells ahead of a request, against pairs that are counted one by one. Needs no server."""

import random
import unittest

import attend
import numpy as np


def counted(queries, keys, *, causal=None, left=None, right=None, valid_keys=None, valid_queries=None):
    """The pairs of one head of one batch entry, as the protocol defines who sees whom."""
    valid_keys = keys if valid_keys is None else valid_keys
    valid_queries = queries if valid_queries is None else valid_queries
    pairs = 0
    for t in range(queries):
        position = t if causal == "top_left" else t + valid_keys - valid_queries
        for j in range(valid_keys):
            future = causal not in (None, False, "none") and j > position
            behind = left is not None and j < position - left
            ahead = right is not None and j > position + right
            pairs += not (future or behind or ahead)
    return pairs


class CostTest(unittest.TestCase):
    def assert_cost(self, request, flops):
        self.assertEqual(request.cost, f"{flops:.3g}" if flops else "")

    def masks(self, rng):
        causal = rng.choice([None, False, "none", "top_left", "bottom_right"])
        left, right = (rng.choice([None, 0, 1, 3, 50, 2**62]) for _ in range(2))
        return {"causal": causal, "left": left, "right": right}

    def options(self, masks):
        return {"causal": masks["causal"], "sliding_window_left": masks["left"], "sliding_window_right": masks["right"]}

    def test_random_attentions(self):
        rng = random.Random(1)
        for _ in range(300):
            batch, heads, t, s, e, v = (rng.randint(1, most) for most in (3, 3, 9, 9, 8, 8))
            masks = self.masks(rng)
            options = self.options(masks)
            lengths = rng.choice([None, [rng.randint(0, s) for _ in range(batch)]])
            layout = rng.choice(["bhte", "bthe"])

            def array(tokens, size, batch=batch, heads=heads, layout=layout):
                return np.zeros((batch, heads, tokens, size) if layout == "bhte" else (batch, tokens, heads, size), np.float32)

            with self.subTest(batch=batch, t=t, s=s, lengths=lengths, layout=layout, **masks):
                request = attend.requests.sdpa(array(t, e), array(s, e), array(s, v), layout=layout, valid_lengths=lengths, **options)
                pairs = sum(counted(t, s, valid_keys=length, **masks) for length in lengths or [s] * batch)
                self.assert_cost(request, 2 * (e + v) * heads * pairs)
                # In self-attention lengths are those of the queries too.
                request = attend.requests.attend(np.zeros((batch, s, e), np.float32), valid_lengths=lengths, **options)
                pairs = sum(counted(s, s, valid_keys=length, valid_queries=length, **masks) for length in lengths or [s] * batch)
                self.assert_cost(request, 4 * e * pairs)
                if lengths is not None:
                    request = attend.requests.attend(array(t, e)[:, 0], context=array(s, e)[:, 0], valid_lengths=iter(lengths), **options)
                    if layout == "bhte":
                        self.assert_cost(request, 4 * e * sum(counted(t, s, valid_keys=length, **masks) for length in lengths))

    def test_random_ragged_batches(self):
        rng = random.Random(2)
        for _ in range(200):
            masks = self.masks(rng)
            options = self.options(masks)
            sizes = [(rng.randint(0, 6), rng.randint(0, 6)) for _ in range(rng.randint(1, 4))] + [(1, 2)]
            queries, keys = (np.cumsum([0] + [size[i] for size in sizes]) for i in range(2))
            with self.subTest(sizes=sizes, **masks):
                query, key = np.zeros((2, queries[-1], 4), np.float32), np.zeros((2, keys[-1], 4), np.float32)
                request = attend.requests.sdpa(query, key, key, cumulative_query_lengths=queries, cumulative_key_lengths=keys, **options)
                self.assert_cost(request, 2 * 8 * 2 * sum(counted(t, s, **masks) for t, s in sizes))
                request = attend.requests.attend(query[0], cumulative_query_lengths=iter(queries), **options)
                self.assert_cost(request, 2 * 8 * sum(counted(t, t, **masks) for t, _ in sizes))

    def test_large_shapes_are_counted_as_fast(self):
        x = np.broadcast_to(np.float32(0), (1 << 20, 64))
        for options, pairs in (
            ({"causal": True}, (1 << 39) + (1 << 19)),
            ({"causal": True, "sliding_window_left": 511}, 512 * (1 << 20) - 511 * 256),
            ({"sliding_window_left": 1 << 40}, 1 << 40),
            ({"causal": np.bool_(False)}, 1 << 40),
        ):
            self.assert_cost(attend.requests.sdpa(x, x, x, **options), 256 * pairs)

    def test_lengths_that_the_server_refuses_have_no_cost(self):
        x = np.zeros((6, 4), np.float32)
        for options in (
            {"valid_lengths": [3, 3]}, {"valid_lengths": [7]}, {"valid_lengths": [-1]}, {"cumulative_query_lengths": [0, 6]},
            {"cumulative_key_lengths": [0, 6]}, {"cumulative_query_lengths": [0, 3, 6], "cumulative_key_lengths": [0, 6]},
            {"cumulative_query_lengths": [0, 8, 6], "cumulative_key_lengths": [0, 3, 6]},
            {"cumulative_query_lengths": [0, 99], "cumulative_key_lengths": [0, 6]},
        ):  # fmt: skip
            with self.subTest(options):
                self.assertEqual(attend.requests.sdpa(x, x, x, **options).cost, "")

    def test_weights_that_are_sent_along_tell_heads_and_sizes(self):
        """Five query heads of size 3 and value size 2, over one key head."""
        x, context = np.zeros((2, 4, 8), np.float32), np.zeros((2, 6, 7), np.float32)
        shapes = {"query.weight": (15, 8), "key.weight": (3, 7), "value.weight": (2, 7), "output.weight": (9, 10)}
        weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        request = attend.requests.attend(x, context=context, layer=weights, num_heads=5, num_kv_heads=1, causal="top_left")
        projections = 2 * 2 * (4 * 15 * 8 + 6 * 3 * 7 + 6 * 2 * 7 + 4 * 9 * 10)
        self.assert_cost(request, projections + 2 * 2 * 5 * (3 + 2) * counted(4, 6, causal="top_left"))

    def test_layers_by_name_have_a_cost_only_where_it_is_small(self):
        """Their own mask may hide what the request's options leave."""
        x = np.zeros((1000, 4), np.float32)
        for options, masks in (
            ({}, {}),
            ({"scale": 0.5}, {}),
            ({"causal": True, "sliding_window_left": 1}, {"causal": True, "left": 1}),
        ):
            with self.subTest(options):
                self.assert_cost(attend.requests.attend(x[:5], layer="a", **options), 16 * counted(5, 5, **masks))
        for options in ({}, {"scale": 0.5}, {"causal": True}, {"sliding_window_left": 100}):
            with self.subTest(options):
                self.assertEqual(attend.requests.attend(x, layer="a", **options).cost, "")


if __name__ == "__main__":
    unittest.main()
