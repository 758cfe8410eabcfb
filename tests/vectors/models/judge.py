"""Right, refused or wrong: attend's answer beside the module's own output."""

import dataclasses
import hashlib
import re

import torch

import inputs
from in_double import MASKED

ROUND = 2.0**-24
SENSITIVE = 100  # How many tolerances a tensor or key that is read must be worth.


def tolerance(attention, output):
    """How far a FLOAT32 evaluation may be from `output`.

    Each score is a product of two rounded projections and carries a few roundings of its own size, at most 8 of the
    largest; a weight moves by as much, relatively. Projections and sums carry at most 64 roundings of the largest result.
    """
    scores = attention.scores
    seen = scores[scores > MASKED].abs() if scores is not None else torch.tensor([16.0])
    largest = float(seen.max()) if seen.numel() else 0.0
    return ROUND * (64 + 8 * largest) * float(output.abs().max())


def group(attention):
    """What makes layers of a model alike: place but for its numbers, class, which keys are seen, which angles turn them."""
    scores = attention.scores
    mask = b"" if scores is None else (scores.reshape(-1, *scores.shape[-2:])[0] <= MASKED).numpy().tobytes()
    angles = b"".join(
        one.numpy().tobytes() for value in attention.kwargs.values() if isinstance(value, tuple) for one in value if torch.is_tensor(one)
    )
    path = re.sub(r"\d+", "*", attention.path)
    return f"{path} {type(attention.module).__name__} {hashlib.sha256(mask + angles).hexdigest()[:6]}"


def seen(attention):
    """Which keys the first query sequence sees, in words: `all`, `causal`, `causal, window 7` or `a pattern`."""
    if attention.scores is None or attention.scores.shape[-2] != attention.scores.shape[-1]:
        return "hidden" if attention.scores is None else "other keys"
    visible = attention.scores.reshape(-1, *attention.scores.shape[-2:])[0] > MASKED
    ones = torch.ones_like(visible)
    if visible.all():
        return "all"
    if torch.equal(visible, ones.tril()):
        return "causal"
    width = int(visible[-1].sum())
    return f"causal, window {width}" if torch.equal(visible, ones.tril() & ones.triu(1 - width)) else "a pattern"


@dataclasses.dataclass
class Verdict:
    verdict: str
    reason: str = ""
    error: float = 0.0
    tolerance: float = 0.0


def target(attention, has_output_projection):
    """What the module gives, or what the linear layer behind it makes of that when attend's layer has an output projection.

    None when there is no such layer to be seen.
    """
    if has_output_projection and not attention.projects:
        return attention.projected
    return attention.unadded() if has_output_projection else attention.output


def _batch_first(tensor):
    """[T, B, D] of the modules that have the batch second, as [B, T, D]."""
    second = tensor.dim() == 3 and tensor.shape[1] == inputs.BATCH and tensor.shape[0] != inputs.BATCH
    return tensor.transpose(0, 1) if second else tensor


def _as_sequences(tensor, embed_dim):
    tensor = _batch_first(tensor)
    if tensor.dim() == 4 and tensor.shape[-1] == embed_dim:
        tensor = tensor.flatten(1, 2)
    return tensor


def judge(asked, name, attention):
    info = asked.info(name)
    tokens, context, bias = attention.inputs()
    tokens = _as_sequences(tokens, info.embed_dim)
    if context is not None:
        context = _as_sequences(context, info.context_dim)
    answer = asked.attend(name, tokens, context, bias)
    if isinstance(answer, str):
        return Verdict("wrong", f"loaded, and then its own module's input is refused: {answer}")
    wanted = target(attention, info.has_output_projection)
    if wanted is None:
        return Verdict("excluded", "nothing in the model shows what its output projection gives")
    wanted = _batch_first(wanted)
    if answer.numel() != wanted.numel():
        return Verdict("wrong", f"its output has shape {tuple(answer.shape)}, the module's {tuple(wanted.shape)}")
    allowed = tolerance(attention, wanted)
    error = float((answer.reshape(wanted.shape) - wanted).abs().max())
    return Verdict("right" if error <= allowed else "wrong", "" if error <= allowed else "numbers differ", error, allowed)
