"""What a model is called with: random tokens, pictures or sound, by the names of its own forward's parameters."""

import inspect

import torch

BATCH, TOKENS, TARGETS = 2, 24, 21  # Longer than every window and original length that shrink.py sets.
GRID = (1, 6, 8)  # Frames, rows and columns of patches, for models that take patches.


def _first(config, *names, default=None):
    for one in (config, *(v for k, v in vars(config).items() if k.endswith("_config") and hasattr(v, "to_dict"))):
        for name in names:
            value = getattr(one, name, None)
            if isinstance(value, (list, tuple)) and value:
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return default


def _normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _tokens(config, generator, length=TOKENS):
    vocabulary = _first(config, "vocab_size", "text_vocab_size", default=100)
    return torch.randint(9, max(vocabulary - 12, 20), (BATCH, length), generator=generator)


def _pixels(config, generator):
    size = getattr(config, "image_size", None) or _first(config, "image_size", "input_size", default=64)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    frames = [config.num_frames] if isinstance(getattr(config, "num_frames", None), int) else []
    return _normal(generator, BATCH, *frames, _channels(config), height, width)


def _channels(config):
    return _first(config, "num_channels", "in_channels", "in_chans", default=3)


def _patches(config, generator):
    size, frames = _first(config, "patch_size", default=8), _first(config, "temporal_patch_size", default=1)
    return _normal(generator, GRID[0] * GRID[1] * GRID[2], _channels(config) * frames * size * size)


def _features(config, generator):
    bins = _first(config, "num_mel_bins", "n_mels", "input_feat_per_channel", "feature_size", "input_dim", default=16)
    length = _first(config, "max_source_positions", default=32) * 2
    time_last = hasattr(config, "max_source_positions") and not hasattr(config, "input_feat_per_channel")
    return _normal(generator, *((BATCH, bins, length) if time_last else (BATCH, length, bins)))


def _sound(config, generator):
    if isinstance(getattr(config, "max_length", None), int) and hasattr(config, "num_mel_bins"):
        return _normal(generator, BATCH, config.max_length, config.num_mel_bins)
    channels = _first(config, "audio_channels", default=0)
    return _normal(generator, BATCH, channels, 4000) if channels else _normal(generator, BATCH, 4000)


def _boxes(config, generator):
    del config
    return torch.randint(0, 60, (BATCH, TOKENS, 4), generator=generator).sort(-1).values


def _path(units):
    """Where each token stands in its page, [B, T, depth]: a number of `units` for each step."""

    def make(config, generator):
        return torch.randint(0, getattr(config, units), (BATCH, TOKENS, config.max_depth), generator=generator)

    return make


def _grid(config, generator):
    del config, generator
    return torch.tensor([GRID])


_MAKERS = {
    "input_ids": _tokens, "decoder_input_ids": lambda config, generator: _tokens(config, generator, TARGETS), "pixel_values": _pixels,
    "images": _pixels, "input_features": _features, "input_values": _sound, "bbox": _boxes, "grid_thw": _grid, "image_grid_thw": _grid,
    "xpath_tags_seq": _path("tag_pad_id"), "xpath_subs_seq": _path("subs_pad_id"),
    "query_embeds": lambda config, generator: _normal(generator, BATCH, TOKENS, config.hidden_size),
    "inputs_embeds": lambda config, generator: _normal(generator, BATCH, TOKENS, config.hidden_size),
}  # fmt: skip
_PATHS = ("xpath_tags_seq", "xpath_subs_seq")  # Left out, all tokens stand in one place and are alike but for their words.
_SOURCES = ("input_ids", "pixel_values", "images", "input_features", "input_values", "decoder_input_ids")


def _arguments(names, config, generator):
    grid = any("grid_thw" in name for name in names)
    makers = _MAKERS | ({"pixel_values": _patches, "hidden_states": _patches} if grid else {})
    return {name: makers[name](config, generator) for name in names}


def _parameters(function):
    return inspect.signature(function).parameters


def calls(model, seed):
    """[(what, function, arguments)]: the calls that may reach all of a model's attention, the whole model's first."""
    generator = torch.Generator().manual_seed(seed)
    config, parameters = model.config, _parameters(model.forward)
    required = [name for name, one in parameters.items() if one.default is one.empty and one.kind == one.POSITIONAL_OR_KEYWORD]
    grids = [name for name in parameters if name in ("grid_thw", "image_grid_thw")]
    named = [name for name in _SOURCES if name in parameters]
    decoder = [name for name in named if name == "decoder_input_ids"]
    boxes = [name for name in parameters if name == "bbox"]
    paths = [name for name in parameters if name in _PATHS]
    tries = []
    for names in (
        named + paths,
        required,
        [model.main_input_name, *decoder],
        ["input_ids", *boxes],
        ["pixel_values", *grids],
        ["hidden_states", *grids],
    ):
        names = list(dict.fromkeys(names + [name for name in required if name in _MAKERS]))
        allowed = set(_MAKERS) | ({"hidden_states"} if grids else set())
        if names and set(names) <= allowed & set(parameters) and names not in tries:
            tries.append(names)
    switches = {"use_cache": False} if "use_cache" in parameters else {}
    made = [("+".join(names), model, _arguments(names, config, generator) | switches) for names in tries]
    return made + _of_parts(model, generator)


def _of_parts(model, generator):
    """Calls of the towers that a model of pictures, sound and text has."""
    made = []
    for method, name, part in (("get_image_features", "pixel_values", "vision_config"), ("get_text_features", "input_ids", "text_config"),
                               ("get_audio_features", "input_features", "audio_config")):  # fmt: skip
        function = getattr(model, method, None)
        if function is not None and name in _parameters(function):
            names = [name] + [one for one in _parameters(function) if one == "image_grid_thw"]
            made.append((method, function, _arguments(names, getattr(model.config, part, model.config), generator)))
    return made
