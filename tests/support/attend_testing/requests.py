"""Requests from arrays and the oracle's options."""

from attend_testing import oracle
from attend_testing.stubs import pb
from attend_testing.tensors import OUTPUT, PER_HEAD, to_linear, to_tensor

_CAUSAL = {
    None: pb.CAUSAL_MODE_UNSPECIFIED,
    "bottom_right": pb.CAUSAL_MODE_BOTTOM_RIGHT,
    "top_left": pb.CAUSAL_MODE_TOP_LEFT,
}


def to_options(options=None, form="data", per_head=False):
    """AttentionOptions of an oracle.Options; tensors of numbers in float32."""
    options = options or oracle.Options()
    message = pb.AttentionOptions(
        scale=options.scale,
        causal=_CAUSAL[options.causal],
        sliding_window_left=options.left,
        sliding_window_right=options.right,
        softcap=options.softcap,
        valid_lengths=options.valid_lengths,
        cumulative_query_lengths=options.cumulative_query_lengths,
        cumulative_key_lengths=options.cumulative_key_lengths,
        top_k=options.top_k,
    )
    for name in ("mask", "key_mask", "bias", "alibi_slopes", "sinks"):
        if (array := getattr(options, name)) is not None:
            getattr(message, name).CopyFrom(to_tensor(array, form))
    if per_head:
        message.attention_weights_form = PER_HEAD
    return message


def sdpa_request(
    query, key, value, options=None, outputs=(OUTPUT,), form="data", per_head=False, types=(None,) * 3
):
    """`types` are those of query, key and value."""
    return pb.ScaledDotProductAttentionRequest(
        query=to_tensor(query, form, types[0]),
        key=to_tensor(key, form, types[1]),
        value=to_tensor(value, form, types[2]),
        options=to_options(options, form, per_head),
        outputs=outputs,
    )


def to_layer(projections, num_heads, num_kv_heads=None, form="data", weight_type=None, bias_type=None):
    """AttentionLayer of {"query": (weight, bias or None), "key": ..., "value": ..., maybe "output": ...}."""
    layer = pb.AttentionLayer(num_heads=num_heads, num_kv_heads=num_kv_heads or 0)
    for name, (weight, bias) in projections.items():
        getattr(layer, f"{name}_projection").CopyFrom(to_linear(weight, bias, form, weight_type, bias_type))
    return layer
