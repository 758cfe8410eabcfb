"""Everything that PyTorch computes in float64, and every softmax seen where it happens."""

import torch
from torch.overrides import TorchFunctionMode

_NARROW = {torch.float32, torch.float16, torch.bfloat16}
_TO_NARROW = {torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16}
_SOFTMAX = {torch.softmax, torch.Tensor.softmax, torch.nn.functional.softmax}

MASKED = -9e3  # Scores at most this are of keys that are not to be seen: -inf, the least of a type, -1e10, -1e4.

# A module that is not told to compute in FLOAT32 by this file may still call nn.MultiheadAttention's fused kernel.
torch.backends.mha.set_fastpath_enabled(False)


def _widen(value):
    if isinstance(value, torch.dtype):
        return torch.float64 if value in _NARROW else value
    if isinstance(value, (tuple, list)) and any(isinstance(one, torch.dtype) for one in value):
        return type(value)(map(_widen, value))
    return value


class InDouble(TorchFunctionMode):
    """Replaces each narrower type that code asks for (softmax in float32, angles in float32) by float64.

    `on_softmax(scores)` is called with what each softmax over the last axis of three or more gets, at most MASKED for keys that are not
    seen; they are None where a fused function hides them.
    """

    def __init__(self, on_softmax=None):
        super().__init__()
        self._on_softmax = on_softmax

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = {name: _widen(value) for name, value in (kwargs or {}).items()}
        args = tuple(map(_widen, args))
        if func in _TO_NARROW:
            return args[0].double()
        if self._on_softmax is not None:
            self._see(func, args, kwargs)
        return func(*args, **kwargs)

    def _see(self, func, args, kwargs):
        if func in _SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            if scores.dim() >= 3 and dim in (-1, scores.dim() - 1):
                self._on_softmax(scores)
        elif func is torch.nn.functional.scaled_dot_product_attention:
            self._on_softmax(_sdpa_scores(*args, **kwargs))
        elif func is torch.nn.functional.multi_head_attention_forward:
            self._on_softmax(None)


def _sdpa_scores(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    del value, dropout_p
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores
