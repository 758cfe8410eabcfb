"""The reference cases in tests/data/golden, computed by PyTorch, as requests and expected results.

What PyTorch did not write down (projections, log-sum-exp) comes from the float64 oracle, which python_support_test
holds to what it did write down.
"""

import dataclasses

import numpy as np

from attend_testing import oracle, safetensors, tolerance
from attend_testing.requests import to_layer, to_options
from attend_testing.server import SOURCE_DIR
from attend_testing.stubs import pb
from attend_testing.tensors import to_tensor

_GOLDEN = SOURCE_DIR / "tests" / "data" / "golden"


@dataclasses.dataclass
class Case:
    """Attention over embeddings [B, T, D] through a layer; results in float64."""

    name: str
    batched: bool  # Whether the embeddings came with a batch axis.
    embeddings: np.ndarray
    context: np.ndarray | None
    projections: dict  # {"query": (weight, bias), "key": ..., "value": ..., "output": ... or absent}
    num_heads: int
    causal: bool  # Bottom-right.
    valid_lengths: list | None
    output: np.ndarray  # [B, T, D_out]
    weights: np.ndarray  # [B, H, T, S]

    def options(self):
        return oracle.Options(causal="bottom_right" if self.causal else None, valid_lengths=self.valid_lengths)

    def projected(self):
        """Query [B, H, T, E], key [B, H, S, E] and value [B, H, S, V] in float64."""
        context = self.embeddings if self.context is None else self.context
        sources = {"query": self.embeddings, "key": context, "value": context}
        return [
            oracle.split_heads(oracle.project(source, *self.projections[name]), self.num_heads)
            for name, source in sources.items()
        ]

    def attended(self):
        """What the oracle makes of it, before the output projection."""
        return oracle.attend(*self.projected(), self.options(), self_attention=self.context is None)

    def output_tolerance(self):
        """The contract's; these output projections (rows of norm below 1) do not enlarge errors."""
        return tolerance.attention(self.projected()[2])

    def entry(self, b):
        """Batch entry b alone."""
        context = None if self.context is None else self.context[b : b + 1]
        lengths = None if self.valid_lengths is None else self.valid_lengths[b : b + 1]
        return dataclasses.replace(
            self,
            name=f"{self.name}[{b}]",
            embeddings=self.embeddings[b : b + 1],
            context=context,
            valid_lengths=lengths,
            output=self.output[b : b + 1],
            weights=self.weights[b : b + 1],
        )

    def request(self, outputs, form="data", batched=True, per_head=False):
        """The AttendRequest; without a batch axis when not `batched` (one entry only)."""

        def tokens(array):
            return to_tensor(array if batched else array[0], form)

        request = pb.AttendRequest(embeddings=tokens(self.embeddings), outputs=outputs)
        if self.context is not None:
            request.context.CopyFrom(tokens(self.context))
        request.layer.CopyFrom(to_layer(self.projections, self.num_heads, form=form))
        request.options.CopyFrom(to_options(self.options(), form, per_head))
        return request


def _notebook(path):
    t, _ = safetensors.load(path)
    batched = t["x"].ndim == 3
    names = ("query", "key", "value")
    weights = t["attention_weights_f64"]
    return Case(
        name=path.stem,
        batched=batched,
        embeddings=t["x"] if batched else t["x"][None],
        context=None,
        projections={name: (t[f"{name}.weight"], t[f"{name}.bias"]) for name in names},
        num_heads=1,
        causal=False,
        valid_lengths=None,
        output=t["output_f64"] if batched else t["output_f64"][None],
        weights=weights[:, None] if batched else weights[None, None],
    )


def _multi_head(path):
    t, metadata = safetensors.load(path)
    weights, biases = np.split(t["in_proj_weight"], 3), np.split(t["in_proj_bias"], 3)
    projections = dict(zip(("query", "key", "value"), zip(weights, biases, strict=True), strict=True))
    projections["output"] = (t["out_proj.weight"], t["out_proj.bias"])
    assert metadata["causal"] in ("none", "bottom_right"), metadata
    return Case(
        name=path.stem,
        batched=True,
        embeddings=t["query"],
        context=None if "self" in path.stem else t["key_value"],
        projections=projections,
        num_heads=int(metadata["num_heads"]),
        causal=metadata["causal"] == "bottom_right",
        valid_lengths=[int(length) for length in t["valid_lengths"]] if "valid_lengths" in t else None,
        output=t["output_f64"],
        weights=t["attention_weights_f64"],
    )


def all_cases():
    """Every notebook_* and mha_* file, found by looking."""
    cases = [_notebook(path) for path in sorted(_GOLDEN.glob("notebook_*.safetensors"))]
    cases += [_multi_head(path) for path in sorted(_GOLDEN.glob("mha_*.safetensors"))]
    assert len(cases) >= 6, f"reference cases are missing from {_GOLDEN}"
    return cases
