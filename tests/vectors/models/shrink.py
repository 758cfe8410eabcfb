"""Small configurations: a model type's own defaults with every size made small and every constant made to matter."""

import re

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, ROTARY_DIM, WIDE, VOCABULARY, POSITIONS = 64, 4, 2, 16, 8, 96, 128, 64
DROPPED = ("out_features", "out_indices", "stage_names")  # Follow from the number of layers.
WINDOW, ORIGINAL_POSITIONS = 7, 8  # Sequences are longer: see inputs.TOKENS.
MOST_LAYERS = 8

_LAYERS = (r"(num_|n_)?(hidden_|encoder_|decoder_|text_|vision_|cross_|transformer_)*(hidden_layers|layers?|depth|blocks)|n_layers?"
           r"|encoder_num_layers|.*num_hidden_layers")
_RULES = [(re.compile(f"^({pattern})$"), value) for pattern, value in (
    (r"num_key_value_heads|num_kv_heads|n_head_kv|n_kv_heads|.*num_key_value_heads|multi_query_group_num", KV_HEADS),
    (r"(num_|n_)?(encoder_|decoder_|self_|attn_|attention_|cross_attention_|text_|vision_|projector_)*(attention_)?heads?"
     r"|.*num_attention_heads|.*attention_heads", HEADS),
    (r"head_dim|attention_head_dim|d_kv|d_head|attention_head_size|kv_channels|.*_head_dim|head_size", HEAD_DIM),
    (r"(encoder_|decoder_|text_|vision_|audio_|out_|output_|encoder_hid|embedding_|cross_|max_|q_|)*(hidden_size|hidden_dim|d_model"
     r"|embed_dim|n_embd|emb_dim|embedding_size|embedding_dim)"
     r"|dim|d_embed|hidden_sizes?_?|projection_dim|latent_dim|d_latents|out_hidden_size|width|conv_dim_?|input_dim|model_dim"
     r"|.*_hidden_size|.*_embed_dim|proj_dim|lstm_dim|mm_hidden_size|output_dim", HIDDEN),
    (r"(.*_)?(intermediate_size|ffn_dim|ffn_hidden_size|n_inner|d_ff|d_inner|mlp_dim|feed_forward_hidden_size|inner_dim"
     r"|feedforward_dim|intermediate_dim|ffn_intermediate_size|moe_intermediate_size|dim_feedforward)|encoder_ffn_dim|decoder_ffn_dim"
     r"|mlp_hidden_size|ffn_size", WIDE),
    (r"(.*_)?vocab_size.*|(.*)vocab_size", VOCABULARY),
    (r"original_max_position_embeddings", ORIGINAL_POSITIONS),
    (r"(.*_)?max_position_embeddings|n_positions|n_ctx|max_sequence_length|max_seq_len|max_target_positions|max_source_positions"
     r"|context_length|seq_length|.*max_seq_length", POSITIONS),
    (r"(.*_)?(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts|num_experts_per_group)", 4),
    (r"(.*_)?(num_experts_per_tok|moe_topk|moe_k|top_k_experts|num_experts_per_token|moe_top_k)", 2),
    (r"(.*_)?n_group|topk_group|num_expert_group", 1),
    (r"(sliding_window|window_size|local_window_size|attention_window|local_attention|attention_window_size|attention_chunk_size)", WINDOW),
    (r"rotary_dim|rope_dim", ROTARY_DIM),
    (r".*image_size|input_size|img_size", 64),
    (r".*patch_size", 8),
    (r"num_mel_bins|n_mels|.*feature_size|feat_dim|input_feat_per_channel", 16),
)]  # fmt: skip
EPSILON = re.compile(r".*(eps|epsilon)$")
_TOKEN = re.compile(r".*(_token_id|_token_index|token_ids?|_id)$")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _depth_of(config):
    """How many layers show each kind that the default's lists of layers have."""
    layers = next((v for k, v in config.items() if re.fullmatch(_LAYERS, k) and _is_number(v)), None)
    wanted = 2
    for value in config.values():
        if isinstance(value, list) and layers and len(value) == layers and not any(isinstance(one, (list, dict)) for one in value):
            wanted = max([wanted, *(value.index(kind) + 1 for kind in set(value))])
    return layers, min(wanted, MOST_LAYERS)


def _of_first_layers(by_layer, depth):
    """{layer: ...} of the layers that are left; of the last one, when all that it names are gone."""
    left = {layer: one for layer, one in by_layer.items() if int(layer) < depth}
    return left or {type(next(iter(by_layer)))(depth - 1): next(iter(by_layer.values()))}


def _is_plain_rotary(value):
    return not value or value.get("rope_type") == "default"


def _scalar(key, value, kv_heads):
    if isinstance(value, float) and EPSILON.match(key) and value < 1e-3:
        return 0.03
    if "softcap" in key:
        return 3.0
    if key == "query_pre_attn_scalar":
        return 24
    if _TOKEN.match(key) and value >= VOCABULARY:
        return VOCABULARY - 1 - sum(map(ord, key)) % 8
    for pattern, small in _RULES:
        if pattern.match(key):
            small = kv_heads if small == KV_HEADS and "experts" not in key and "moe" not in key and "top" not in key else small
            return min(small, value) if small in (4, 2) and "expert" in key else small
    return value


def shrink(config, kv_heads=KV_HEADS, sizes=None):
    """A configuration's dictionary made small, nested ones too. `sizes`: {key: value} that this type needs."""
    if not all(isinstance(key, str) for key in config):
        return config
    if config.get("use_sliding_window") is False:  # A window that is there and not used: it is used here, by the last layers.
        config = {key: value for key, value in config.items() if key != "layer_types"} | {"sliding_window": WINDOW}
    layers, depth = _depth_of(config)
    small = {}
    for key, value in config.items():
        if key in DROPPED:
            continue
        if sizes and key in sizes:
            value = sizes[key]
        elif sizes and "mrope_section" in sizes and key in ("rope_parameters", "rope_scaling") and _is_plain_rotary(value):
            value = (value or {}) | {"rope_type": "default", "mrope_section": sizes["mrope_section"]}
        elif isinstance(value, dict) and key not in ("id2label", "label2id", "per_layer_config"):
            value = shrink(value, kv_heads, sizes)
        elif key == "per_layer_config" and value:
            value = _of_first_layers(value, depth)
        elif isinstance(value, list) and key in ("num_heads", "num_attention_heads") and value:
            value = [2, 4, 8, 16][: len(value)]
        elif key == "mrope_section":
            value = [HEAD_DIM // 2 - 2 * 3, 3, 3]
        elif isinstance(value, list) and layers and len(value) == layers:
            value = value[:depth]
        elif _is_number(value) and re.fullmatch(_LAYERS, key):
            value = depth
        elif key in ("use_sliding_window",):
            value = True
        elif key == "max_window_layers":
            value = 1
        elif _is_number(value):
            value = _scalar(key, value, kv_heads)
        small[key] = value
    return small
