"""Which modules of a model are attention, and what goes into each and comes out in a pass through the whole model."""

import dataclasses
import inspect

import torch

from in_double import MASKED, InDouble

_QUERIES = ("hidden_states", "from_tensor", "query", "query_states", "x", "hidden_state", "inputs", "input", "q_in", "input_tensor")
_CONTEXTS = (
    "key_value_states",
    "encoder_hidden_states",
    "key",
    "context",
    "kv",
    "kv_states",
    "xa",
    "cross_attention_states",
    "encoder_output",
    "inputs_kv",
    "to_tensor",
)
_BIASES = ("position_bias", "relative_position_bias")


@dataclasses.dataclass
class Attention:
    """One attention module and its first call."""

    path: str
    module: torch.nn.Module
    args: tuple
    kwargs: dict
    scores: torch.Tensor = None  # What softmax got.
    calls: int = 0
    output: torch.Tensor = None
    projects: bool = False  # Whether a linear layer within the module follows the softmax.
    projection: str = ""  # The path of the one that takes the module's output otherwise,
    projected: torch.Tensor = None  # and what it makes of it.
    inner: torch.Tensor = None  # What the last linear layer within the module, after the softmax, gives,
    tail: tuple = ()  # and what the module's last leaf gets and gives, and the leaf.
    outputs: object = None
    after_softmax: bool = False

    def _bound(self):
        try:
            return inspect.signature(self.module.forward).bind(*self.args, **self.kwargs).arguments
        except TypeError:
            return dict(self.kwargs)

    def tensors(self):
        """{name: tensor} of what the module was called with."""
        bound = self._bound()
        bound.update(bound.pop("kwargs", {}) or {})
        return {name: value for name, value in bound.items() if torch.is_tensor(value) and value.is_floating_point()}

    def inputs(self):
        """(tokens, context or None, bias or None): what attend is sent."""
        given = self.tensors()
        query = next((given[name] for name in _QUERIES if name in given), None)
        query = next(iter(given.values())) if query is None else query
        context = next((given[name] for name in _CONTEXTS if name in given and given[name] is not query), None)
        return query, context, self._relative_bias(given)

    def _relative_bias(self, given):
        """T5's, which a caller has to send as README says: without what is masked, which attend has to know itself."""
        bias = next((given[name] for name in _BIASES if name in given and given[name].dim() == 4), None)
        if bias is None and hasattr(self.module, "relative_attention_bias") and isinstance(self.outputs, tuple):
            fits = (one for one in self.outputs if torch.is_tensor(one) and one.dim() == 4 and one.shape[-2:] == self.scores.shape[-2:])
            bias = next((one for one in fits if float((one.sum(-1) - 1).abs().max()) > 1e-6), None)
        if bias is None and hasattr(self.module, "relative_attention_bias") and hasattr(self.module, "compute_bias"):
            with torch.no_grad(), InDouble():  # UMT5's blocks have a table each, and give no bias to the next.
                bias = self.module.compute_bias(*self.scores.shape[-2:])
        return None if bias is None else bias.masked_fill(bias < MASKED, 0)

    def unadded(self):
        """The module's output, or what its output projection gives where it adds an input of its own to that (and norms it)."""
        if self.inner is None or self.inner.shape != self.output.shape:
            return self.output
        for one in self.tensors().values():
            if one.shape != self.inner.shape:
                continue
            total = self.inner + one
            normed = self.tail and self.tail[0].shape == total.shape and torch.allclose(total, self.tail[0])
            if torch.allclose(total, self.output) or (normed and torch.equal(self.tail[1], self.output)):
                return self.inner
        return self.output

    def deviation(self):
        """How much scores differ within a row: the root mean square over rows, or None when they are hidden or alone."""
        if self.scores is None:
            return None
        scores = self.scores.flatten(0, -2)
        visible = scores > MASKED
        count = visible.sum(-1)
        mean = scores.where(visible, 0).sum(-1) / count.clamp(min=1)
        variance = (scores - mean[:, None]).where(visible, 0).square().sum(-1) / count.clamp(min=1)
        return float(variance[count > 1].mean().sqrt()) if bool((count > 1).any()) else None


def is_linear(module):
    weight = getattr(module, "weight", None)
    return (
        torch.is_tensor(weight) and weight.dim() in (2, 3, 4) and not list(module.children()) and "Embedding" not in type(module).__name__
    )


def _weights(module):
    return sum(parameter.dim() >= 2 for parameter in module.parameters())


def first_tensor(value):
    if torch.is_tensor(value):
        return value
    if isinstance(value, (tuple, list)):
        return next((one for one in map(first_tensor, value) if one is not None), None)
    return first_tensor(tuple(value.values())) if isinstance(value, dict) and value else None


class Watch:
    """Hooks on every module of `model`; `found` is {path: Attention} after passes."""

    def __init__(self, model):
        self.found, self._stack, self._waiting = {}, [], {}
        self._handles = []
        for path, module in model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._enter(path), with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._leave(path), with_kwargs=True))

    def close(self):
        for handle in self._handles:
            handle.remove()

    def run(self, function, arguments):
        self._stack.clear()
        with torch.no_grad(), InDouble(self._on_softmax):
            function(**arguments)

    def _enter(self, path):
        def hook(module, args, kwargs):
            self._stack.append((path, module, args, kwargs))
            if is_linear(module):
                for entry in self._stack:
                    if (one := self.found.get(entry[0])) is not None and one.after_softmax:
                        one.projects = True
                one = self._takes(args[0]) if args and torch.is_tensor(args[0]) else None
                if one is not None and not path.startswith(one.path + "."):
                    one.projection = path

        return hook

    def _takes(self, tensor):
        """The attention whose output `tensor` is, by its memory or else by its numbers, and that no linear layer took."""
        for one in self._waiting.values():
            if one.projection or one.output.numel() != tensor.numel():
                continue
            if one.output.data_ptr() == tensor.data_ptr() or torch.equal(one.output.reshape(-1), tensor.reshape(-1)):
                return one
        return None

    def _leave(self, path):
        def hook(module, args, kwargs, output):
            self._stack.pop()
            if not list(module.children()):
                self._leave_leaf(module, args, output)
            if (one := self.found.get(path)) is not None and one.output is None:
                one.output, one.outputs, one.after_softmax = first_tensor(output), output, False
                if one.output is not None and not one.projects:
                    self._waiting[path] = one
            for one in self._waiting.values():
                if one.projection == path and one.projected is None:
                    one.projected = first_tensor(output)

        return hook

    def _leave_leaf(self, module, args, output):
        for entry in self._stack:
            one = self.found.get(entry[0])
            if one is None or not one.after_softmax or not args or not torch.is_tensor(args[0]) or not torch.is_tensor(output):
                continue
            if is_linear(module):
                one.inner = output
            elif args[0].shape == output.shape and args[0] is not output:
                one.tail = (args[0], output, module)

    def _on_softmax(self, scores):
        entry = next((one for one in reversed(self._stack) if _weights(one[1]) >= 2), None)
        if entry is None or not entry[0]:
            return
        path, module, args, kwargs = entry
        if path not in self.found:
            self.found[path] = Attention(path, module, _cloned(args), _cloned(kwargs))
        one = self.found[path]
        one.calls += 1
        if one.output is None:
            one.after_softmax = True
            one.projects = one.projects or isinstance(module, torch.nn.MultiheadAttention)
            one.scores = scores if one.scores is None else one.scores


def _cloned(value):
    """Copies the tensors, which code may write into; other objects stay."""
    if torch.is_tensor(value):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return type(value)(map(_cloned, value)) if type(value) in (tuple, list) else value
    if type(value).__name__.endswith("Cache"):
        return None  # A run of the module alone begins without one, as this pass did.
    return {name: _cloned(one) for name, one in value.items()} if type(value) is dict else value
