"""Attention in place of torch's, computed by a server: a function and a module, for CPU tensors, without gradients.

They use attend.default_client() unless a client is given.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from attend._arrays import refuse_torch
from attend._client import Client
from attend._default import default_client

__all__ = ["MultiheadAttention", "scaled_dot_product_attention"]


def _refuse_dropout(dropout: float, name: str) -> None:
    if dropout != 0:  # Also what is no probability.
        raise ValueError(f"{name} is {dropout}: attend computes no dropout, which changes the result. Give 0, or call eval()")


def _check_mask_type(mask: torch.Tensor, name: str) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{name} has the type {mask.dtype}; expected torch.bool, or floating-point numbers to be added, as in torch")


def _check_mask_shape(mask: torch.Tensor, name: str, *expected: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in expected:
        raise ValueError(f"{name} has the shape {tuple(mask.shape)}; expected {' or '.join(map(str, expected))}")


def _lead(*shapes: Any) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))


def _in_four_axes(tensor: torch.Tensor, batch: tuple[int, ...], heads: int) -> torch.Tensor:
    """[..., rows, columns] as [B, heads, rows, columns], without a copy where there is nothing to repeat."""
    while tensor.dim() < 3:
        tensor = tensor.unsqueeze(0)
    rows, columns = tensor.shape[-2:]
    return tensor.expand(*batch, heads, rows, columns).reshape(math.prod(batch), heads, rows, columns)


def _mask_in_four_axes(mask: torch.Tensor, batch: tuple[int, ...]) -> torch.Tensor:
    """A mask that broadcasts to [..., H, T, S] as one of four axes, some of them 1."""
    if mask.dim() < 4:
        mask = mask.reshape((1,) * (4 - mask.dim()) + tuple(mask.shape))
    if mask.shape[:-3].numel() > 1:
        mask = mask.expand(*batch, *mask.shape[-3:])
    return mask.reshape(-1, *mask.shape[-3:])


def _check_broadcast(mask: torch.Tensor, scores: tuple[int, ...]) -> None:
    """Refuses a mask that does not broadcast to the scores: torch adds it in place, so that it may not add axes or repeat them."""
    # Queries without a batch are a batch of one to torch, and those without heads may have a mask of one row.
    whole, least = ((1, *scores), 2) if len(scores) == 3 else (scores, 1 if len(scores) == 2 else 2)
    try:
        fits = mask.dim() >= least and _lead(mask.shape, whole) == whole
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"attn_mask has the shape {tuple(mask.shape)}, which does not broadcast to the scores' {scores}")


def _heads(tensor: torch.Tensor) -> int:
    return tensor.shape[-3] if tensor.dim() > 2 else 1


def _leading_axes(inputs: tuple[torch.Tensor, ...], enable_gqa: bool) -> tuple[tuple[int, ...], int, int]:
    """The batch, and the heads of the query and of key and value. Raises ValueError where axes do not broadcast."""
    lead = [tensor.shape[:-2] for tensor in inputs]
    query_heads, key_heads, value_heads = map(_heads, inputs)
    try:
        batch = _lead(*(axes[:-1] for axes in lead))
        if enable_gqa and value_heads in (1, key_heads):
            return batch, query_heads, key_heads
        if not enable_gqa:
            (heads,) = _lead((query_heads,), (key_heads,), (value_heads,))
            return batch, heads, heads
    except RuntimeError:
        pass
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
    raise ValueError(f"the leading axes of query, key and value do not go together; their shapes are {shapes}")


def _refuse_what_does_not_go_together(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
    """As the server would."""
    if query.shape[-1] != key.shape[-1] or key.shape[-2] != value.shape[-2]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (query, key, value))
        raise ValueError(f"query and key have one size, key and value one length; the shapes are {shapes}")


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    client: Client | None = None,
) -> torch.Tensor:
    """torch.nn.functional.scaled_dot_product_attention, with its signature and its meaning.

    query: [..., T, E]; key: [..., S, E]; value: [..., S, V]; leading axes broadcast as torch's do.
    attn_mask: booleans, True is visible; or numbers that are added to the scores. Broadcasts to [..., T, S].
    dropout_p: must be 0.
    is_causal: query t sees key j when j <= t, whatever T and S are (top-left). Not with attn_mask.
    scale: default 1/sqrt(E).
    enable_gqa: whether key and value may have fewer heads (axis -3) than the query.
    client: default: attend.default_client().

    Returns [..., T, V] in the query's type. A row that sees no key is 0. Without elements or keys nothing is sent. Raises ValueError
    for what torch refuses, and for dropout, gradients and devices other than the CPU; attend.AttendError when the call fails.
    """
    _refuse_dropout(dropout_p, "dropout_p")
    if is_causal and attn_mask is not None:
        raise ValueError("is_causal and attn_mask exclude each other, as in torch")
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(f"query, key and value need two axes or more; they have {query.dim()}, {key.dim()} and {value.dim()}")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(f"query, key and value have one type; they have {query.dtype}, {key.dtype} and {value.dtype}")
    batch, heads, kv_heads = _leading_axes((query, key, value), enable_gqa)
    lead = (*batch, heads) if max(query.dim(), key.dim(), value.dim()) > 2 else ()
    if attn_mask is not None:
        _check_mask_type(attn_mask, "attn_mask")
        _check_broadcast(attn_mask, (*lead, query.shape[-2], key.shape[-2]))
    shape = (*lead, query.shape[-2], value.shape[-1])
    if 0 in shape or key.shape[-2] == value.shape[-2] == 0:  # The protocol has no empty tensors.
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            refuse_torch(tensor, name)
        _refuse_what_does_not_go_together(query, key, value)
        return query.new_zeros(shape)
    options: dict[str, Any] = {"causal": "top_left" if is_causal else None, "scale": scale}
    if attn_mask is not None:
        options["mask" if attn_mask.dtype == torch.bool else "bias"] = _mask_in_four_axes(attn_mask, batch)
    inputs = (_in_four_axes(query, batch, heads), _in_four_axes(key, batch, kv_heads), _in_four_axes(value, batch, kv_heads))
    output = (client or default_client()).sdpa(*inputs, **options).output
    return output.reshape(shape)


class MultiheadAttention(torch.nn.MultiheadAttention):  # type: ignore[misc,unused-ignore]
    """torch.nn.MultiheadAttention for inference, with the attention itself computed by a server.

    Takes the same arguments and loads the same state_dict(). The projections are computed here, so that query, key and value
    may be three different tensors; the server needs no layer. As a part of torch's TransformerEncoderLayer it is called too: torch's
    fast path around it is off.

    `dropout` above 0 is ignored in eval() and refused in training. In place of torch's NaN, a query that sees no key gets
    weights of 0 and the output projection's bias.
    """

    client: Client | None = None
    """Who computes. Default: attend.default_client()."""

    def _reset_parameters(self) -> None:
        """Torch's, which ends its constructor. TransformerEncoderLayer computes attention itself, without a call of its module, in
        eval() without gradients, unless this attribute is false."""
        self._qkv_same_embed_dim = self.in_proj_weight is not None
        super()._reset_parameters()
        self._qkv_same_embed_dim = False

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As torch's.

        query: [T, D], [T, B, D] or, with batch_first, [B, T, D]; key and value likewise with S, kdim and vdim.
        key_padding_mask: [S] or [B, S]; as booleans True hides the key (the opposite of attend's key_mask), else added.
        attn_mask: [T, S] or [B * H, T, S]; as booleans True hides, else added.
        is_causal: as in torch a promise that attn_mask, which it requires, is causal: the mask is applied as it is given.

        Returns the output, of the query's shape, and the attention weights: [(B,) T, S], with average_attn_weights=False
        [(B,) H, T, S]; None unless need_weights. Raises ValueError for what torch refuses: other shapes, and masks that are neither
        booleans nor floating-point numbers.
        """
        _refuse_dropout(self.dropout if self.training else 0.0, "dropout")
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True is a promise about attn_mask, which must be given too, as in torch")
        self._check_shapes(query, key, value)
        batched, first = query.dim() == 3, self.batch_first
        self._check_masks(query, key, key_padding_mask, attn_mask)
        if not batched:
            query, key, value = (tensor.unsqueeze(0) for tensor in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        q, k, v = self._project(query, key, value)
        options = self._masks(query.shape[0], k.shape[2], key.shape[1], key_padding_mask, attn_mask)
        outputs = ("output", "attention_weights") if need_weights else ("output",)
        result = (self.client or default_client()).sdpa(q, k, v, outputs=outputs, per_head=not average_attn_weights, **options)
        output = self.out_proj(result.output.transpose(1, 2).flatten(2))
        weights = result.attention_weights
        if weights is not None:
            weights = weights.to(query.dtype)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if first else output.transpose(0, 1)), weights

    def _check_shapes(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        """What torch refuses."""
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError(f"query, key and value have {query.dim()}, {key.dim()} and {value.dim()} axes; expected 2 each, or 3 each")
        sizes, expected = [tensor.shape[-1] for tensor in (query, key, value)], [self.embed_dim, self.kdim, self.vdim]
        if sizes != expected:
            raise ValueError(f"the last axes of query, key and value are {sizes}; the module's sizes are {expected}")
        if key.shape[:-1] != value.shape[:-1]:
            raise ValueError(f"key and value have the shapes {tuple(key.shape)} and {tuple(value.shape)}, of different tokens")
        batch = 0 if self.batch_first else 1
        if query.dim() == 3 and query.shape[batch] != key.shape[batch]:
            raise ValueError(f"query and key have the batch sizes {query.shape[batch]} and {key.shape[batch]}")

    def _check_masks(
        self, query: torch.Tensor, key: torch.Tensor, padding: torch.Tensor | None, mask: torch.Tensor | None
    ) -> None:
        """What torch refuses; query and key are as they were given. An integer would be added to the scores, or broadcast."""
        batched, tokens = query.dim() == 3, 1 if query.dim() == 3 and self.batch_first else 0
        batch = query.shape[1 - tokens] if batched else 1
        queries, keys = query.shape[tokens], key.shape[tokens]
        if padding is not None:
            _check_mask_type(padding, "key_padding_mask")
            _check_mask_shape(padding, "key_padding_mask", (batch, keys) if batched else (keys,))
        if mask is not None:
            _check_mask_type(mask, "attn_mask")
            _check_mask_shape(mask, "attn_mask", (queries, keys), (batch * self.num_heads, queries, keys))

    def _project(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, key and value [B, H, tokens, E], the last two with the module's own keys behind the given ones."""
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        biases: Any = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases))
        if self.bias_k is not None:
            k = torch.cat([k, self.bias_k.expand(k.shape[0], 1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(v.shape[0], 1, -1)], 1)
        if self.add_zero_attn:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
        heads = [x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for x in (q, k, v)]
        return tuple(heads)

    def _masks(
        self, batch: int, keys: int, given_keys: int, padding: torch.Tensor | None, mask: torch.Tensor | None
    ) -> dict[str, Any]:
        """The options for attend. Keys of the module's own, behind those that were given, are visible to all."""
        options: dict[str, Any] = {}
        extra = keys - given_keys
        if mask is not None and mask.dim() == 3:
            mask = mask.unflatten(0, (batch, self.num_heads))
        if padding is not None and padding.dtype != torch.bool:
            padding = padding[:, None, None, :]
            mask_added = torch.zeros((), dtype=padding.dtype).masked_fill(mask, float("-inf")) if _is_bool(mask) else mask
            mask, padding = padding if mask_added is None else padding + mask_added, None
        if padding is not None:
            options["key_mask"] = F.pad(~padding, (0, extra), value=True)
        if mask is not None:
            hidden = F.pad(mask, (0, extra))  # False, or 0 to be added.
            options["mask" if _is_bool(hidden) else "bias"] = ~hidden if _is_bool(hidden) else hidden
        return options


def _is_bool(mask: torch.Tensor | None) -> bool:
    return mask is not None and mask.dtype == torch.bool
