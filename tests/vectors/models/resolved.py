"""What a model of transformers does in each attention module, found by watching it compute, in the words of attend's LayerSettings.

A value that watching does not show (a scale where scores are more than a product, say) is left out.
"""

import contextlib
import math

import torch

import capture
import inputs
from in_double import MASKED, InDouble

_PRODUCTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm}
LONG = 4200  # Windows of up to so many tokens are looked for.


class _Products(InDouble):
    """Also keeps the last product of queries and keys before each softmax."""

    def __init__(self, on_softmax):
        super().__init__(self._of_product)
        self._told, self._last = on_softmax, None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs)
        if func in _PRODUCTS and len(args) == 2 and result.dim() >= 3:
            self._last = (args[0], args[1], result.clone())  # It may be scaled in place.
        return result

    def _of_product(self, scores):
        fits = self._last is not None and scores is not None and self._last[2].shape[-2:] == scores.shape[-2:]
        self._told(scores, self._last if fits else None)


class Probe(capture.Watch):
    """`seen` is {path: (module, query, key, product, scores)} after a pass; query, key and product may be None."""

    def __init__(self, model):
        super().__init__(model)
        self.seen, self.magnitudes = {}, set()
        for module in model.modules():
            if "Rotary" in type(module).__name__:
                self._handles.append(module.register_forward_hook(self._on_angles))

    def run(self, function, arguments):
        self._stack.clear()
        with torch.no_grad(), _Products(self._on_scores):
            function(**arguments)

    def _on_angles(self, module, args, output):
        if isinstance(output, tuple) and len(output) == 2 and all(torch.is_tensor(one) for one in output):
            self.magnitudes.add(round(float((output[0].square() + output[1].square()).max().sqrt()), 9))

    def _on_scores(self, scores, product):
        before = set(self.found)
        self._on_softmax(scores)
        for path in set(self.found) - before:
            query, key, scaled = product or (None, None, None)
            self.seen[path] = (self.found[path].module, query, key, scaled, scores)


def _heads(key):
    """How many different heads of keys there are: grouped ones stand side by side."""
    heads = key.shape[1]
    for share in sorted((n for n in range(1, heads + 1) if heads % n == 0), reverse=True):
        groups = key.unflatten(1, (heads // share, share))
        if torch.equal(groups, groups[:, :, :1].expand_as(groups)):
            return heads // share
    return heads


def _mask(scores):
    """{causal, left, right} of a square of scores; empty for other shapes. A window that is not seen is left out."""
    visible = scores.reshape(-1, *scores.shape[-2:])[0] > MASKED
    length = visible.shape[0]
    if visible.shape[0] != visible.shape[1] or not visible.diagonal().all():
        return {}
    left = max(query - int(row.nonzero()[0]) for query, row in enumerate(visible))
    right = max(int(row.nonzero()[-1]) - query for query, row in enumerate(visible))
    ones = torch.ones_like(visible)
    if not torch.equal(visible, ones.tril(right) & ones.triu(-left)):
        return {}
    mask = {"causal": right == 0}
    if left < length - 1:
        mask["left"] = left
    if 0 < right < length - 1:
        mask["right"] = right
    return mask


def _scale(module, product, scores):
    visible = scores > MASKED
    if product is None or product.shape != scores.shape:
        return {}
    softcap = getattr(module, "attn_logit_softcapping", None)
    plain = softcap * torch.atanh(scores / softcap) if softcap else scores
    given, got = product[visible], plain[visible]
    scale = float((given * got).sum() / given.square().sum())
    exact = float((got - scale * given).abs().max()) <= 1e-9 * float(got.abs().max())
    if not exact or scale == 1:
        return {}  # More is added, or queries may have been scaled before the product.
    return {"scale": scale} | ({"softcap": softcap} if softcap else {})


def _norm(module):
    for name, one in module.named_children():
        epsilon = getattr(one, "variance_epsilon", getattr(one, "eps", None))
        weight = getattr(one, "weight", None)
        if not name.startswith(("q_norm", "q_layernorm", "query_layernorm")) or epsilon is None or weight is None:
            continue
        weight = weight.clone()
        with torch.no_grad(), InDouble():
            flat = one(torch.full(weight.shape, 3.0, dtype=torch.float64)).abs().max()
            one.weight.zero_()
            adds_one = bool(one(torch.randn(weight.shape, dtype=torch.float64)).abs().max() > 0)
            one.weight.copy_(weight)
        kind = "layer" if float(flat) < 1e-6 and not adds_one else "rms"
        return {"norm": kind, "epsilon": float(epsilon), "adds_one": adds_one}
    return {}


def _turns(query, dim, halves):
    """The frequency of each pair of elements, or None when the pairs do not keep their length from token to token."""
    pairs = query[..., :dim].unflatten(-1, (2, dim // 2) if halves else (dim // 2, 2))
    first, second = pairs.unbind(-2 if halves else -1)
    lengths = first.square() + second.square()
    if float((lengths - lengths[:, :1]).abs().max()) > 1e-9 * float(lengths.max()):
        return None
    angles = torch.atan2(second, first)
    turned = (angles[:, 1] - angles[:, 0]).remainder(2 * math.pi)
    turned = torch.where(turned > math.pi, turned - 2 * math.pi, turned).abs()
    return turned[0] if float((turned - turned[0]).abs().max()) < 1e-9 else None


def _rotary(query, magnitudes):
    """Of queries [H, T, E] of tokens that are all alike, of which only their places make a difference."""
    moved = (query - query[:, :1]).abs().amax((0, 1)) > 1e-12 * float(query.abs().max())
    if not moved.any():
        return {"rotary": "none"}
    dim = (int(moved.nonzero()[-1]) + 2) // 2 * 2
    for form, halves in (("half", True), ("interleaved", False)):
        turns = _turns(query, dim, halves)
        if turns is not None:
            more = {"factor": next(iter(magnitudes))} if len(magnitudes) == 1 else {}
            return {"rotary": form, "dim": dim, "frequencies": [float(f"{one:.9g}") for one in turns]} | more
    return {}


def _alike(arguments):
    """The same call with one token, patch or sample for all."""

    def same(value):
        if not torch.is_tensor(value):
            return value
        return torch.full_like(value, 11) if not value.is_floating_point() else torch.full_like(value, 0.3)

    return {name: value if "grid" in name else same(value) for name, value in arguments.items()}


def _without_places(model):
    """Forgets embeddings of places that are added to tokens; those that turn queries are called the same in three types."""
    if model.config.model_type in ("codegen", "gptj", "roformer"):
        return
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and ("position" in name or "wpe" in name):
                tensor.zero_()


def _run(model, change=lambda arguments: arguments):
    probe = Probe(model)
    for _, function, arguments in inputs.calls(model, 0):
        with contextlib.suppress(Exception):
            probe.run(function, change(arguments))
    probe.close()
    return probe


def _long_masks(model, length):
    """{path: [T, T] visible} of modules that get their mask as an argument; what they compute is left out."""
    masks = {}

    def stub(path):
        def forward(hidden_states, *args, attention_mask=None, **kwargs):
            masks[path] = attention_mask
            return torch.zeros_like(hidden_states), None

        return forward

    for path in Probe(model).found or _run(model).seen:
        model.get_submodule(path).forward = stub(path)
    batch, tokens = inputs.BATCH, inputs.TOKENS
    inputs.BATCH, inputs.TOKENS = 1, length
    try:
        _, function, arguments = inputs.calls(model, 0)[0]
        with torch.no_grad(), InDouble(), contextlib.suppress(Exception):
            function(**arguments)
    finally:
        inputs.BATCH, inputs.TOKENS = batch, tokens
    return {path: one for path, one in masks.items() if torch.is_tensor(one) and one.is_floating_point()}


def _add_long_windows(source, config, layers):
    window = next((config[key] for key in ("sliding_window", "window_size") if isinstance(config.get(key), int)), None)
    if window is None or not inputs.TOKENS <= window <= LONG or not any("left" not in one and one.get("causal") for one in layers.values()):
        return
    for path, mask in _long_masks(source.make(config), window + 2).items():
        if path in layers:
            layers[path].update(_mask(mask))


def settings(source, config):
    """{path: {...}} of each attention module of a model with `config`, a dictionary; modules of a kind once."""
    model = source.make(config)
    probe = _run(model)
    layers = {}
    for path, (module, query, key, product, scores) in probe.seen.items():
        if scores is None or scores.dim() != 4:
            continue
        one = {"heads": scores.shape[1]} | _mask(scores) | _scale(module, product, scores) | _norm(module)
        if query is not None and query.dim() == 4 and query.shape[1] == scores.shape[1]:
            one |= {"kv_heads": _heads(key), "head_dim": query.shape[-1]}
        layers[path] = one
    _without_places(model)
    alike = _run(model, _alike)
    for path, (_, query, _, _, scores) in alike.seen.items():
        if path in layers and query is not None and query.dim() == 4 and query.shape[:3] == scores.shape[:3]:
            layers[path] |= _rotary(query[0], alike.magnitudes)
    # What transformers resolved, with its own defaults for absent keys.
    _add_long_windows(source, model.config.to_dict(), layers)
    return layers


def kinds(layers):
    """One layer of each kind: the first with such settings."""
    first = {}
    for path, one in layers.items():
        first.setdefault(repr(one), path)
    return {path: layers[path] for path in first.values()}
