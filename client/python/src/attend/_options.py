"""How queries look at keys: the keyword arguments that `sdpa` and `attend` share, as AttentionOptions of the protocol."""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, cast

from google.protobuf.descriptor import FieldDescriptor

from attend._arrays import to_mask, to_tensor
from attend._protocol import CAUSAL_MODES, WEIGHTS_FORMS, descriptor, enum_names
from attend._wire import Message


class Options(TypedDict, total=False):
    """The options of `sdpa` and `attend`, each a keyword argument. None is the same as leaving it out.

    Axes: B batch entries, H query heads, T queries, S keys, E the size of a query or key head. In order: scale, softcap,
    bias and ALiBi, masks, sink, softmax. A row whose keys are all masked gives 0, never NaN. Ranges are the server's to
    check: InvalidArgumentError with the field's path.
    """

    causal: str | bool | None
    """Hides the future. "bottom_right": the last query sees every key (query t sees key j when j <= t + S - T), as
    flash-attn, ONNX and a decoder with a cache have it. "top_left": the first query sees the first key alone (j <= t), as
    torch's `is_causal=True` has it. True: only where both are the same (T = S), else ValueError. False: nothing is hidden,
    not even by the named layer's own mask. Default: the named layer's, else nothing is hidden."""

    scale: float | None
    """The factor on query . key; finite. Default: the named layer's, else 1/sqrt(E)."""

    softcap: float | None
    """Replaces each scaled score x by softcap * tanh(x / softcap); positive. Default: the named layer's, else none."""

    sliding_window_left: int | None
    """How many keys before its own position a query sees; at least 0. (A window of W tokens with its own, as
    transformers counts, is W - 1.) Default: the named layer's, else all."""

    sliding_window_right: int | None
    """How many keys after its own position a query sees; at least 0. Default: the named layer's, else all."""

    valid_lengths: Sequence[int] | None
    """The number of valid leading keys of each batch entry, for padding at the end; B numbers in [0, S]. Default: all."""

    key_mask: Any
    """Which keys each batch entry may see, for padding on any side: booleans [B, S] ([S] without a batch axis), True is
    visible (the opposite of torch.nn.MultiheadAttention's key_padding_mask). Default: all."""

    mask: Any
    """Which keys each query may see: booleans [T, S], or [B, H, T, S] in which any axis may be 1; True is visible.
    Default: all."""

    bias: Any
    """Added to the scores: floating-point [T, S], or [B, H, T, S] in which any axis may be 1. Default: none."""

    alibi_slopes: Any
    """Adds -slope * |distance| to each score; [H]. Default: the named layer's, else none."""

    sinks: Any
    """One logit for each query head that takes part in the softmax and has no value; [H]. Default: the named layer's, else
    none."""

    cumulative_query_lengths: Sequence[int] | None
    """A ragged batch: N sequences end to end without padding; N + 1 numbers from 0 to T. Goes without a batch of more than
    one and without `valid_lengths`. Default: one sequence."""

    cumulative_key_lengths: Sequence[int] | None
    """The same for the keys. Default: in self-attention those of the queries; else required with them."""

    top_k: int | None
    """Returns the k largest weights of each row and their keys too (`top_attention_weights`, `top_attention_indices`); in
    [1, 2^20]. Default: not returned."""

    per_head: bool
    """Whether attention weights are returned for each query head; default: their mean over the heads."""

    precision: str | None
    """"exact": all that attend promises of accuracy and equal bits. "fast": as fast as the machine allows for 16-bit
    inputs. Default: the named layer's, else exact."""


class Extent:
    """What decides whether `causal=True` means one thing: the numbers of queries and keys, and whether they are the same
    tokens."""

    def __init__(self, queries: int, keys: int, self_attention: bool):
        self.queries, self.keys, self.self_attention = queries, keys, self_attention

    def is_square(self, options: Options) -> bool:
        """Whether the masks anchored at both corners are the same mask. REQUIRES: lengths are lists."""
        if self.self_attention:
            return True
        query_lengths, key_lengths = options.get("cumulative_query_lengths"), options.get("cumulative_key_lengths")
        if query_lengths is not None and key_lengths is not None:
            return query_lengths == key_lengths
        if query_lengths is not None or key_lengths is not None:
            return False
        return self.queries == self.keys and options.get("valid_lengths") is None


def hides_the_future(options: Options) -> bool:
    """Whether the options themselves are causal. REQUIRES: write_options has taken them."""
    causal = options.get("causal")
    return causal != "none" if isinstance(causal, str) else bool(causal)


def _choice(name: str, value: Any, names: dict[str, int]) -> int:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name} is {value!r}; expected {', '.join(map(repr, names))}")
    return names[value]


def _plain(value: Any) -> Any:
    """A number or boolean of NumPy or torch as Python's."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _causal(value: Any, options: Options, extent: Extent) -> int:
    if isinstance(_plain(value), bool):
        if not value:
            return CAUSAL_MODES["none"]
        if not extent.is_square(options):
            raise ValueError(
                f"causal=True means two things for {extent.queries} queries and {extent.keys} keys"
                f"{' with valid lengths' if options.get('valid_lengths') is not None else ''}: causal='bottom_right' lets the "
                "last query see every key (flash-attn, a decoder with a cache); causal='top_left' lets the first query see the "
                "first key alone (torch's is_causal). Say which"
            )
        return CAUSAL_MODES["bottom_right"]
    return _choice("causal", value, CAUSAL_MODES)


def _index(value: Any) -> int:
    value = _plain(value)
    if isinstance(value, bool):  # Python would take it for 0 or 1.
        raise TypeError
    return operator.index(value)


def integers(name: str, values: Any) -> list[int]:
    """Of a list, an array or a tensor. Without any the protocol would not tell it from one that is not given."""
    try:
        out = [_index(value) for value in values]
    except TypeError:
        raise TypeError(f"{name} is {values!r}; expected integers") from None
    if not out:
        raise ValueError(f"{name} is empty; leave it out, or give None, where there is none")
    return out


def integer(name: str, value: Any) -> int:
    """Not a boolean, which Python would take for 0 or 1."""
    try:
        if not isinstance(number := _plain(value), bool):
            return operator.index(number)
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; expected an integer")


def count(name: str, value: Any) -> int:
    """A number of heads: the protocol would take 0 for one that is not given, and has no more than an int32."""
    number = integer(name, value)
    if number < 1:
        raise ValueError(f"{name} is {value!r}; expected 1 or more")
    if number >= 2**31:
        raise ValueError(f"{name} is {value!r}; expected an integer from 1 to {2**31 - 1}")
    return number


def _vector(options: Message, name: str, value: Any, type_name: str) -> None:
    options.tensor(name, to_tensor(value, name, list_type="float64" if type_name == "float64" else "float32"))


def _integer(options: Message, name: str, value: Any, _: str) -> None:
    options.number(name, integer(name, value))


def _number(options: Message, name: str, value: Any, _: str) -> None:
    """float() would take text and booleans too."""
    number = _plain(value)
    if not isinstance(number, numbers.Real) or isinstance(number, bool):
        raise TypeError(f"{name} is {value!r}; expected a real number")
    try:
        options.number(name, float(number))
    except OverflowError:
        raise ValueError(f"{name} is {value!r}, which is beyond the numbers of float64") from None


def _lengths(options: Message, name: str, value: Any, _: str) -> None:
    options.numbers(name, value)


def _mask(options: Message, name: str, value: Any, _: str) -> None:
    options.tensor(name, to_mask(value, name))


def _mode(options: Message, name: str, value: Any, _: str) -> None:
    options.number(name, _choice(name, value, _MODES[name]))


def _writer(field: FieldDescriptor) -> Callable[[Message, str, Any, str], None]:
    if field.message_type is not None:
        return _mask if field.name.endswith("mask") else _vector
    if field.enum_type is not None:
        return _mode
    if field.name.endswith("lengths"):
        return _lengths
    return _number if field.type == FieldDescriptor.TYPE_DOUBLE else _integer


_FIELDS = {field.name: field for field in descriptor("attend.v1.AttentionOptions").fields}
_MODES = {name: enum_names(field.enum_type.full_name) for name, field in _FIELDS.items() if field.enum_type is not None}
_WRITERS = {name: _writer(field) for name, field in _FIELDS.items()}
# Version 0.1 of the server ignores options with a larger field number than `top_k` has.
NEWER_OPTIONS = {name for name, field in _FIELDS.items() if field.number > _FIELDS["top_k"].number}


def with_listed_lengths(options: Options) -> Options:
    """The same with lengths as lists of integers: they are read several times, and what was given may be read once or slowly."""
    if not options:
        return options
    lists = {name: integers(name, value) for name, value in options.items() if _WRITERS.get(name) is _lengths and value is not None}
    return cast(Options, {**options, **lists}) if lists else options


def write_options(options: Options, type_name: str, extent: Extent) -> tuple[Message, list[str]]:
    """The message, and the fields in it that version 0.1 does not know. `type_name` is the query's element type.

    REQUIRES: with_listed_lengths(options). Raises TypeError for a keyword that is no option, and for values of another type;
    ValueError for an unknown choice.
    """
    message, newer = Message("AttentionOptions"), []
    for name, value in options.items():
        if name not in Options.__annotations__:
            close = difflib.get_close_matches(name, Options.__annotations__, 1)
            raise TypeError(f"there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        if value is None:
            continue
        if name == "causal":
            message.number(name, _causal(value, options, extent))
        elif name == "per_head":
            if not isinstance(_plain(value), bool):
                raise TypeError(f"per_head is {value!r}; expected a boolean")
            message.number("attention_weights_form", WEIGHTS_FORMS["per_head" if value else "averaged"])
        else:
            _WRITERS[name](message, name, value, type_name)
        if name in NEWER_OPTIONS or (name in ("alibi_slopes", "sinks") and type_name == "float64"):
            newer.append(name)
    return message, newer
