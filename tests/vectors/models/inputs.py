"""What a model is called with: random tokens, pictures or sound, by the names of its own forward's parameters."""

import inspect

import torch

BATCH, TOKENS, TARGETS = 2, 24, 21  # Longer than every window and original length that shrink.py sets.


def _first(config, *names, default=None):
    for one in (config, *(v for k, v in vars(config).items() if k.endswith("_config") and hasattr(v, "to_dict"))):
        for name in names:
            value = getattr(one, name, None)
            if isinstance(value, (list, tuple)) and value:
                value = value[0]
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return default


def _tokens(config, generator, length=TOKENS):
    vocabulary = _first(config, "vocab_size", "text_vocab_size", default=100)
    return torch.randint(9, max(vocabulary - 12, 20), (BATCH, length), generator=generator)


def _pixels(config, generator):
    size = getattr(config, "image_size", None) or _first(config, "image_size", "input_size", default=32)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = _first(config, "num_channels", "in_channels", "in_chans", default=3)
    return torch.randn(BATCH, channels, height, width, generator=generator, dtype=torch.float64)


def _features(config, generator):
    bins = _first(config, "num_mel_bins", "n_mels", "input_feat_per_channel", "feature_size", "input_dim", default=16)
    length = _first(config, "max_source_positions", default=32) * 2
    shape = (BATCH, bins, length) if "whisper" in config.model_type or hasattr(config, "max_source_positions") else (BATCH, length, bins)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


_MAKERS = {
    "input_ids": _tokens,
    "decoder_input_ids": lambda config, generator: _tokens(config, generator, TARGETS),
    "pixel_values": _pixels,
    "images": _pixels,
    "input_features": _features,
    "input_values": lambda config, generator: torch.randn(BATCH, 4000, generator=generator, dtype=torch.float64),
}


def calls(model, seed):
    """[(what, function, arguments)]: the calls that may reach all of a model's attention, the whole model's first."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    parameters = inspect.signature(model.forward).parameters

    def arguments(names, of=None):
        return {name: _MAKERS[name](of or config, generator) for name in names}

    named = [name for name in _MAKERS if name in parameters]
    switches = {"use_cache": False} if "use_cache" in parameters else {}
    tries = []
    for names in (named, [model.main_input_name] + [n for n in named if n == "decoder_input_ids"], ["input_ids"], ["pixel_values"]):
        if names and all(name in _MAKERS for name in names) and names not in (one for one, _ in tries):
            tries.append((names, model))
    made = [("+".join(names), function, arguments(names) | switches) for names, function in tries]
    for method, name, part in (("get_image_features", "pixel_values", "vision_config"), ("get_text_features", "input_ids", "text_config"),
                               ("get_audio_features", "input_features", "audio_config")):  # fmt: skip
        if hasattr(model, method):
            made.append((method, getattr(model, method), arguments([name], getattr(config, part, config))))
    return made
