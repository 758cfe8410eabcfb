"""The methods of a client, once for all kinds of client: their type parameters are what a kind returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from attend import _flows, _layer_flows
from attend._layer_flows import Source
from attend._requests import Request, make_attend, make_sdpa

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from attend._options import Options

ResultT = TypeVar("ResultT")
InfoT = TypeVar("InfoT")
EstimateT = TypeVar("EstimateT")
LayerT = TypeVar("LayerT")
LayersT = TypeVar("LayersT")
NoneT = TypeVar("NoneT")


class AttentionCalls(Generic[ResultT]):
    """Attention over query, key and value, and over embeddings."""

    def _compute(self, request: Request) -> ResultT:
        raise NotImplementedError

    def sdpa(
        self,
        query: Any,
        key: Any,
        value: Any,
        *,
        outputs: Sequence[str] = ("output",),
        layout: str = "bhte",
        partials: tuple[Any, Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> ResultT:
        """Scaled dot-product attention: softmax(query . key^T / sqrt(E)) . value.

        Arrays are NumPy arrays or torch CPU tensors of float32, float64, float16 or bfloat16 (ml_dtypes', in NumPy). float64
        goes with float64 alone; the others may be mixed. Results are of the query's kind and type.

        query: [T, E], [H, T, E] or [B, H, T, E].
        key: [S, E], [K, S, E] or [B, K, S, E]; K divides H (grouped-query attention).
        value: [S, V], [K, S, V] or [B, K, S, V].
        outputs: which tensors to return: `output`, `attention_weights`, `log_sum_exp`, `scores`.
        layout: "bhte" as above, or "bthe" with tokens before heads, also in the output: [B, T, H, E].
        partials: (output, log_sum_exp) of the same queries over other keys, with a leading axis of parts: the result is that
            over all keys together. float32 only.
        timeout: seconds; default: the client's.
        options: see attend.Options: causal, scale, mask, bias, key_mask, valid_lengths, sliding_window_left, ...

        Raises AttendError, or one of its subclasses; TypeError and ValueError for arguments that cannot be sent.
        """
        return self._compute(make_sdpa(query, key, value, outputs, layout, partials, timeout, options))

    def attend(
        self,
        embeddings: Any,
        *,
        context: Any = None,
        layer: str | Mapping[str, Any] | None = None,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        layer_etag: str | None = None,
        position_offset: int | Sequence[int] | None = None,
        outputs: Sequence[str] = ("output",),
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> ResultT:
        """Attention over embeddings, projected to query, key and value by a layer.

        Arrays and results as for sdpa; results are of the embeddings' kind and type.

        embeddings: the tokens that ask, [T, D] or [B, T, D].
        context: the tokens that are looked at, [S, D'] or [B, S, D']. Default: the embeddings (self-attention).
        layer: the name of a layer that the server keeps (see client.layers); or its weights, sent along: a mapping of
            `query.weight` [H * E, D], `key.weight` [K * E, D'], `value.weight` [K * V, D'], optional `output.weight`
            [D_out, H * V] and `.bias` of each; None is one that is not there. Default: query = embeddings and key = value =
            context, with one head.
        num_heads, num_kv_heads: H and K, with weights. Default: 1 and H.
        layer_etag: the etag that the named layer must have (LayerInfo.etag), else AbortedError. Default: any.
        position_offset: the position of the first token in its text, for a named layer with rotary embeddings; a number, or
            one for each batch entry. Default: 0.
        outputs: which tensors to return: `output`, `attention_weights`, `log_sum_exp`, `query`, `key`, `value`, `scores`.
        timeout: seconds; default: the client's.
        options: see attend.Options.

        Raises AttendError, or one of its subclasses; TypeError and ValueError for arguments that cannot be sent.
        """
        request = make_attend(
            embeddings, context, layer, num_heads, num_kv_heads, layer_etag, position_offset, outputs, timeout, options
        )
        return self._compute(request)


class Driver:
    """Makes the calls of a flow and returns what it returns: itself, or an awaitable of it."""

    def _drive(self, flow: Any) -> Any:
        raise NotImplementedError


class ClientCalls(AttentionCalls[ResultT], Driver, Generic[ResultT, InfoT, EstimateT]):
    """What every client can be asked."""

    def _compute(self, request: Request) -> ResultT:
        return self._drive(_flows.compute(request))

    def info(self) -> InfoT:
        """What the server is and accepts: version, instruction set, types, limits."""
        return self._drive(_flows.server_info())

    def estimate(self, request: Request) -> EstimateT:
        """What a request would cost, and whether this server would admit it, without computing it.

        request: made by attend.requests.sdpa or attend.requests.attend. Arrays are described, not sent: one without memory,
        as np.broadcast_to(np.float32(0), shape) or a torch tensor on the device "meta", will do.
        """
        return self._drive(_flows.estimate(request))


class LayerCalls(Generic[LayerT, LayersT, NoneT]):
    """The layers that a server keeps by name."""

    def __init__(self, client: Driver):
        self._client = client

    def list(self, name_prefix: str = "") -> LayersT:
        """The layers whose names start with `name_prefix`, in ascending order of their names."""
        return self._client._drive(_layer_flows.list_layers(name_prefix))

    def get(self, name: str) -> LayerT:
        """Describes a layer. Raises NotFoundError."""
        return self._client._drive(_layer_flows.get_layer(name))

    def create(
        self,
        name: str,
        source: Source | None = None,
        *,
        init: tuple[int, int] | None = None,
        num_heads: int | None = None,
        num_kv_heads: int | None = None,
        config: Mapping[str, Any] | None = None,
        prefix: str = "",
        replace: bool = False,
        etag: str | None = None,
        sha256: str | None = None,
        ignore_config_json: bool = False,
        timeout: float | None = None,
    ) -> LayerT:
        """Uploads a layer, and returns its description.

        name: `[a-z0-9][a-z0-9._/-]*`, at most 128 characters.
        source: the weights, in any naming that attend knows (docs/layers.md lists them): the path of a .safetensors file,
            its bytes, or a mapping of names to arrays, as a torch module's state_dict().
        init: in place of `source`, (seed, embed_dim): the teaching notebook's layer as torch.manual_seed(seed) draws it.
        num_heads, num_kv_heads: what the weights do not say; most namings need `num_heads`.
        config: the rest of LayerConfig, as JSON has it: {"rotary_embedding": {"base": 10000}, "options": {"scale": 0.125}}.
        prefix: what comes before the layer's tensors in the source, as `encoder.layer.0.`; others are ignored, and those of a
            mapping are not sent.
        replace: whether a layer of this name is replaced. Default: AlreadyExistsError.
        etag: with `replace`, only when the layer there has this etag, else AbortedError.
        sha256: the SHA-256 of the source's bytes in hexadecimal, in either case; another content is refused. Default: not compared.
        ignore_config_json: whether a path is taken although a config.json beside it may say more: scale, softcap, window, rotary
            embedding. It is not read here; the command `attend layers upload` reads it. Default: ValueError.
        timeout: seconds. Default: the client's, and one more for each MiB.

        Raises OSError for a file that cannot be read, as open() does; AttendError, TypeError and ValueError as attend does.
        """
        message = _layer_flows.make_config(config, num_heads, num_kv_heads)
        flow = _layer_flows.create_layer(name, source, init, message, prefix, replace, etag, sha256, ignore_config_json, timeout)
        return self._client._drive(flow)

    def delete(self, name: str, *, etag: str | None = None) -> NoneT:
        """Deletes a layer, with `etag` only that version of it. Raises NotFoundError, AbortedError."""
        return self._client._drive(_layer_flows.delete_layer(name, etag))


class Requests(AttentionCalls[Request]):
    """Makes requests without sending them, for client.stream and client.estimate."""

    def _compute(self, request: Request) -> Request:
        return request
