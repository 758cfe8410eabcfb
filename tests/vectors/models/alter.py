"""Other values for the keys of a config.json: one key at a time, numbers moved, switches flipped, rotary scalings set."""

import copy

import shrink

# Of every configuration in transformers, or about training, generation and sizes of what is no attention.
NOT_ATTENTION = (
    "dropout", "pdrop", "drop_path", "initializer", "token_id", "token_index", "vocab", "router", "aux_loss", "loss", "torch_dtype",
    "dtype", "version",
    "use_cache", "output_", "return_dict", "id2label", "label2id", "problem_type", "tie_", "hidden_size", "intermediate", "num_labels",
    "layerdrop",
    "beam", "temperature", "expert", "moe", "mask_", "pretraining_tp", "gradient", "prun", "chunk_size_feed_forward", "mlp_bias", "ffn",
    "init_", "_init",
    "image_size", "patch_size", "num_channels", "feature_size", "architectures", "model_type", "classifier", "summary_", "mamba", "conv",
    "num_hidden_layers",
)  # fmt: skip
MOST = 60

_SCALINGS = (
    {"rope_type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": shrink.ORIGINAL_POSITIONS},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": shrink.ORIGINAL_POSITIONS, "attention_factor": 1.3,
     "beta_fast": 16.0, "beta_slow": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": shrink.ORIGINAL_POSITIONS, "mscale": 0.7,
     "mscale_all_dim": 0.4, "truncate": False},
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
     "original_max_position_embeddings": shrink.ORIGINAL_POSITIONS},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": shrink.ORIGINAL_POSITIONS,
     "short_factor": [1.0 + i / 7 for i in range(shrink.HEAD_DIM // 2)], "long_factor": [1.5 + i / 3 for i in range(shrink.HEAD_DIM // 2)]},
)  # fmt: skip


def others(key, value):
    if isinstance(value, bool):
        return [not value]
    if key in ("rope_scaling", "rope_parameters") and (value is None or ("rope_type" in value and value["rope_type"] == "default")):
        kept = {name: one for name, one in (value or {}).items() if name != "rope_type"}
        return [kept | scaling for scaling in _SCALINGS]
    if value is None:
        return [shrink.WINDOW] if key in ("sliding_window", "attention_window") else []
    if isinstance(value, int):
        return [value * 2] if value == 1 else [value * 2, value // 2]
    if isinstance(value, float) and shrink.EPSILON.match(key):
        return [value * 20]
    if isinstance(value, float):
        factor = 8 if "theta" in key else 2  # Pairs of elements turn by roots of a base.
        return [value * factor, value / factor] if value else [0.5]
    if isinstance(value, list) and len({str(one) for one in value}) > 1:
        return [value[1:] + value[:1]]
    return []


def _shorter(config, other):
    """What else has to change so that `other` can be seen: a dynamic scaling begins behind the positions that a model has.

    A tower of sound may make one token of eight frames, and has as many tokens as ORIGINAL_POSITIONS.
    """
    is_dynamic = isinstance(other, dict) and other.get("rope_type") == "dynamic" and "max_position_embeddings" in config
    return {"max_position_embeddings": shrink.ORIGINAL_POSITIONS // 2} if is_dynamic else {}


def alterations(config, path=()):
    """[(key path, altered configuration)], at most MOST."""
    found = []
    for key, value in config.items():
        if any(part in key for part in NOT_ATTENTION):
            continue
        if isinstance(value, dict) and not (
            key in ("rope_parameters", "rope_scaling") and value.get("rope_type") == "default" and not path
        ):
            found += [(inner, config | {key: altered}) for inner, altered in alterations(value, (*path, key))]
        else:
            for other in others(key, value):
                found.append((".".join((*path, key)) + f"={other!s}", config | {key: copy.deepcopy(other)} | _shorter(config, other)))
    return found[:MOST]
