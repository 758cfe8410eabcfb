"""The ONNX project's own tests of its `Attention` operator, as requests to attend and expected results.

The operator (https://onnx.ai/onnx/operators/onnx__Attention.html) places query i of a batch entry at position i + offset,
where offset is the length of the past, or `nonpad_kv_seqlen` minus the number of queries, or 0. attend places query t at
t + S' - T, with S' from `valid_lengths`, or at t with CAUSAL_MODE_TOP_LEFT: `_place_queries` translates.
"""

import dataclasses
import warnings

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from attend_testing.element_types import BF16, F16, F32, F64
from attend_testing.stubs import pb
from attend_testing.tensors import to_tensor

_INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
_OUTPUTS = ("Y", "present_key", "present_value", "qk_matmul_output")
_SERVED_TYPES = {"float32": F32, "float16": F16, "bfloat16": BF16, "float64": F64}

# What `qk_matmul_output_mode` numbers, in the order of the operator's steps.
_SCALED, _CAPPED, _BIASED, _SOFTMAX = 0, 1, 2, 3


@dataclasses.dataclass
class Case:
    name: str
    attributes: dict
    inputs: dict  # By the names in _INPUTS; absent ones are missing. Numbers of 16 bits are widened to float32.
    outputs: dict  # By the names in _OUTPUTS, the same.
    type_names: dict  # Of inputs and outputs, before they were widened.

    @property
    def mode(self):
        return self.attributes.get("qk_matmul_output_mode", _SCALED)

    def left_out_because(self):
        """Why attend cannot be asked this, or None."""
        types = {self.type_names[name] for name in ("Q", "K", "V")}
        for name in sorted(types - set(_SERVED_TYPES)):
            return f"tensors of {name}: attend computes {', '.join(_SERVED_TYPES)} alone"
        return None

    def type_of(self, name):
        return _SERVED_TYPES.get(self.type_names.get(name))


def all_cases():
    """Every case of the operator, without those that repeat one with its function body written out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Collecting makes every operator's cases, and some overflow on purpose.
        cases = collect_testcases("Attention")
    return [_read(case) for case in cases if not case.name.endswith("_expanded")]


def _read(case):
    (node,) = case.model.graph.node
    ((inputs, outputs),) = case.data_sets
    given = [_INPUTS[i] for i, name in enumerate(node.input) if name]
    made = [_OUTPUTS[i] for i, name in enumerate(node.output) if name]
    assert len(given) == len(inputs) and len(made) == len(outputs), case.name
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    arrays = dict(zip(given + made, inputs + outputs, strict=True))
    type_names = {name: array.dtype.name for name, array in arrays.items()}
    for name in arrays:
        if type_names[name].endswith("float16"):
            arrays[name] = arrays[name].astype(np.float32)
    return Case(case.name, attributes, {n: arrays[n] for n in given}, {n: arrays[n] for n in made}, type_names)


def split_heads(array, heads):
    """[B, T, heads * E] -> [B, heads, T, E]; four axes stay as they are."""
    if array.ndim == 4:
        return array
    batch, length, width = array.shape
    return array.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads_like(expected, output):
    """[B, H, T, V] in the shape of `expected`."""
    return output if expected.ndim == 4 else output.transpose(0, 2, 1, 3).reshape(expected.shape)


@dataclasses.dataclass
class Problem:
    """A case as attend sees it. Keys beyond `num_keys` were added to move the queries, and no mask lets them be seen."""

    query: np.ndarray  # [B, H, T, E]
    key: np.ndarray  # [B, K, S, E]
    value: np.ndarray  # [B, K, S, V]
    mask: np.ndarray | None  # Of four axes, broadcastable to [B, H, T, S]; bool or float32.
    num_keys: int
    options: pb.AttentionOptions
    types: tuple  # Of query, key, value and mask.

    def request(self, outputs, with_mask=True):
        request = pb.ScaledDotProductAttentionRequest(
            query=to_tensor(self.query, data_type=self.types[0]),
            key=to_tensor(self.key, data_type=self.types[1]),
            value=to_tensor(self.value, data_type=self.types[2]),
            outputs=outputs,
        )
        request.options.CopyFrom(self.options)
        if self.mask is not None and with_mask:
            self._set_mask(request.options)
        return request

    def _set_mask(self, options):
        full = self.mask.shape[:2] == (1, 1) and self.mask.shape[2:] == (self.query.shape[2], self.key.shape[2])
        mask = self.mask[0, 0] if full else self.mask  # Two axes are enough where nothing is repeated.
        if mask.dtype == bool:
            options.mask.CopyFrom(to_tensor(mask))
        else:
            options.bias.CopyFrom(to_tensor(mask, data_type=self.types[3]))


def problem_of(case):
    attributes, inputs = case.attributes, case.inputs
    query = split_heads(inputs["Q"], attributes.get("q_num_heads"))
    key, value = (split_heads(inputs[name], attributes.get("kv_num_heads")) for name in ("K", "V"))
    past = 0
    if "past_key" in inputs:
        past = inputs["past_key"].shape[2]
        key = np.concatenate((inputs["past_key"], key), axis=2)
        value = np.concatenate((inputs["past_value"], value), axis=2)
    options = pb.AttentionOptions(attention_weights_form=pb.ATTENTION_WEIGHTS_FORM_PER_HEAD)
    if "scale" in attributes:
        options.scale = attributes["scale"]
    if attributes.get("softcap", 0) > 0:
        options.softcap = attributes["softcap"]
    types = tuple(map(case.type_of, ("Q", "K", "V", "attn_mask")))
    problem = Problem(query, key, value, _mask(inputs.get("attn_mask"), key.shape[2]), key.shape[2], options, types)
    _place_queries(problem, attributes, past, inputs.get("nonpad_kv_seqlen"))
    return problem


def _mask(mask, num_keys):
    """With four axes; keys that it does not reach are hidden, as the operator says."""
    if mask is None:
        return None
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    missing = num_keys - mask.shape[3] if mask.shape[3] > 1 else 0
    return np.pad(mask, [(0, 0)] * 3 + [(0, missing)], constant_values=False if mask.dtype == bool else -np.inf)


def _place_queries(problem, attributes, past, nonpad):
    options, causal = problem.options, bool(attributes.get("is_causal", 0))
    windows = {side: attributes.get(f"{side}_window_size", -1) for side in ("left", "right")}
    for side, size in windows.items():
        if size >= 0:
            setattr(options, f"sliding_window_{side}", size)
    if causal:
        options.causal = pb.CAUSAL_MODE_BOTTOM_RIGHT
    if nonpad is not None:
        options.valid_lengths.extend(int(length) for length in nonpad.ravel())
        return
    if not causal and max(windows.values()) < 0:
        return  # Positions do not matter.
    queries = problem.query.shape[2]
    if past + queries == problem.num_keys:
        return
    if past == 0 and causal:
        options.causal = pb.CAUSAL_MODE_TOP_LEFT
    elif past + queries < problem.num_keys and causal:
        # Nothing beyond the last query's position can be seen, so the keys may as well end there.
        options.valid_lengths.extend([past + queries] * len(problem.query))
    elif past + queries > problem.num_keys:
        _append_hidden_keys(problem, past + queries - problem.num_keys)
    else:
        raise NotImplementedError("a window without causality over more keys than past and queries")


def _append_hidden_keys(problem, count):
    """Their values are NaN: a key that a mask excludes must not have a say."""
    pad = [(0, 0), (0, 0), (0, count), (0, 0)]
    problem.key = np.pad(problem.key, pad, constant_values=np.nan)
    problem.value = np.pad(problem.value, pad, constant_values=np.nan)
    visible = np.arange(problem.num_keys + count) < problem.num_keys
    if problem.mask is None:
        problem.mask = visible.reshape(1, 1, 1, -1)
    else:
        raise NotImplementedError("hidden keys beside a mask")


def intermediate_request(case, problem):
    """(request, name of its response's field) for what `qk_matmul_output` holds in the case's mode."""
    if case.mode == _SOFTMAX:
        return problem.request([pb.OUTPUT_KIND_ATTENTION_WEIGHTS]), "attention_weights"
    request = problem.request([pb.OUTPUT_KIND_SCORES], with_mask=case.mode == _BIASED)
    if case.mode != _BIASED:  # Before any mask, also those of positions.
        request.options.ClearField("causal")
        request.options.ClearField("valid_lengths")
        request.options.ClearField("sliding_window_left")
        request.options.ClearField("sliding_window_right")
    if case.mode == _SCALED:
        request.options.ClearField("softcap")
    return request, "scores"
