"""Attention for models of Hugging Face transformers, computed by a server:

    attend.huggingface.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="attend")

For inference on the CPU. Needs transformers 4.53 or newer, and a model that takes attention functions by name.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from attend._client import Client
from attend._default import default_client

__all__ = ["register"]

# What models hand to every attention function, and what no attention function needs.
_IRRELEVANT = {
    "cache_position", "logits_to_keep", "num_items_in_batch", "output_attentions", "output_hidden_states", "output_router_logits",
    "position_ids", "return_dict", "token_type_ids", "use_cache",
}  # fmt: skip


def register(name: str = "attend", client: Client | None = None) -> None:
    """Makes attn_implementation=`name` an attention that `client` (default: attend.default_client()) computes.

    Padding, causality, sliding windows, caches, grouped heads, softcaps, sinks and weights (output_attentions) are applied.
    What is not computed raises ValueError when a model asks for it: dropout, position biases, head masks and every keyword
    argument that this version does not know.
    """

    def forward(module: torch.nn.Module, query: Any, key: Any, value: Any, attention_mask: Any, **given: Any) -> Any:
        return _forward(client or default_client(), module, query, key, value, attention_mask, given)

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, _mask)


def _mask(*args: Any, **given: Any) -> Any:
    """Booleans [B, 1, T, S] in every case, so that no mask has to be guessed from the shapes of query and key."""
    return sdpa_mask(*args, **{**given, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def _refuse(given: dict[str, Any]) -> None:
    """What changes a result and is not computed here. An argument of None is one that is not given."""
    for name, value in given.items():
        if value is not None and name not in _IRRELEVANT:
            raise ValueError(
                f"the model gives its attention {name}, which attend does not compute; use attn_implementation='eager' for it"
            )


def _visibility(module: Any, query: Any, key: Any, mask: Any, is_causal: bool | None, window: int | None) -> dict[str, Any]:
    """The options that say which keys are seen. A mask holds causality, window and padding."""
    if mask is not None:
        # A model with a cache of a fixed size may give a mask for more keys than there are.
        mask = mask[..., : key.shape[-2]]
        return {"mask" if mask.dtype == torch.bool else "bias": mask}
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    queries, keys = query.shape[-2], key.shape[-2]
    if window is not None and keys > window:
        raise ValueError(f"the model has a sliding window of {window} and gives no mask that says where it stands")
    if not causal or queries == 1:
        return {}
    if queries != keys:
        raise ValueError(f"the model is causal and gives no mask for {queries} queries and {keys} keys: where they stand is unknown")
    return {"causal": True}


def _forward(client: Client, module: Any, query: Any, key: Any, value: Any, mask: Any, given: dict[str, Any]) -> Any:
    """Query [B, H, T, E], key and value [B, K, S, E]; returns the output [B, T, H, E] and weights [B, H, T, S] or None."""
    dropout, scaling, is_causal = given.pop("dropout", 0.0), given.pop("scaling", None), given.pop("is_causal", None)
    softcap, sinks, window = given.pop("softcap", None), given.pop("s_aux", None), given.pop("sliding_window", None)
    with_weights = bool(given.get("output_attentions"))
    _refuse(given)
    if dropout:
        raise ValueError(f"the model asks for dropout of {dropout}, which attend does not compute; call model.eval()")
    # Before 5, transformers' GPT-2 scales its scores itself in eager attention and tells no other.
    if scaling is None and (not getattr(module, "scale_attn_weights", True) or getattr(module, "scale_attn_by_inverse_layer_idx", False)):
        raise ValueError("the model scales its scores in a way that it does not tell; use attn_implementation='eager' for it")
    options = _visibility(module, query, key, mask, is_causal, window)
    outputs = ("output", "attention_weights") if with_weights else ("output",)
    result = client.sdpa(
        query, key, value, outputs=outputs, per_head=True, scale=scaling, softcap=softcap, sinks=sinks, **options
    )
    weights = result.attention_weights
    return result.output.transpose(1, 2).contiguous(), None if weights is None else weights.to(query.dtype)
