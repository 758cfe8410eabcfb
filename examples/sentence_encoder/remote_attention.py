"""The attention layers of a BERT checkpoint, kept by an attend server and called by name."""

import numpy as np
from attend.v1 import attention_service_pb2 as pb
from attend.v1 import attention_service_pb2_grpc, layer_service_pb2, layer_service_pb2_grpc, tensor_pb2

_CHUNK = 1 << 20  # Bytes of an upload's messages.


class RemoteAttention:
    """Layer i is called `NAME/i`. Keeps the last answer, with each head's weights if they are wanted."""

    def __init__(self, channel, name, with_weights=False, timeout=60):
        self._attention = attention_service_pb2_grpc.AttentionServiceStub(channel)
        self._layers = layer_service_pb2_grpc.LayerServiceStub(channel)
        self._name, self._with_weights, self._timeout = name, with_weights, timeout
        self.answer = None

    def upload(self, weights, config):
        """Uploads the attention weights of every layer; replaces layers of these names."""
        for layer in range(config["num_hidden_layers"]):
            prefix = f"encoder.layer.{layer}.attention."
            header = layer_service_pb2.CreateLayerHeader(name=f"{self._name}/{layer}", prefix=prefix, replace=True)
            header.config.num_heads = config["num_attention_heads"]
            self._layers.CreateLayer(_messages(header, weights.file_of(prefix)), timeout=self._timeout)

    def __call__(self, layer, x, ends):
        """As encoder.py asks for it: one call for all sentences, without padding."""
        request = pb.AttendRequest(
            embeddings=tensor_pb2.Tensor(
                data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=x.shape, data=x.astype("<f4").tobytes()
            ),
            layer_name=f"{self._name}/{layer}",
            outputs=[pb.OUTPUT_KIND_OUTPUT],
        )
        request.options.cumulative_query_lengths.extend(map(int, ends))
        if self._with_weights:
            request.outputs.append(pb.OUTPUT_KIND_ATTENTION_WEIGHTS)
            request.options.attention_weights_form = pb.ATTENTION_WEIGHTS_FORM_PER_HEAD
        self.answer = self._attention.Attend(request, timeout=self._timeout)
        return np.frombuffer(self.answer.output.data, "<f4").reshape(self.answer.output.shape).astype(np.float64)


def _messages(header, content):
    yield layer_service_pb2.CreateLayerRequest(header=header)
    for begin in range(0, len(content), _CHUNK):
        yield layer_service_pb2.CreateLayerRequest(chunk=content[begin : begin + _CHUNK])
