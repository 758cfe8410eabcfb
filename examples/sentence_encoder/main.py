"""Which of these sentences mean the same? With all-MiniLM-L6-v2, whose attention an attend server computes.

    main.py --model DIRECTORY [--server HOST:PORT] [--upload] [SENTENCE ...]

DIRECTORY has config.json, vocab.txt and model.safetensors. The server has the layers `minilm/0` to `minilm/5`, from its
own configuration (see README.md) or, with --upload, from here.
"""

import argparse

import grpc

from encoder import SentenceEncoder
from remote_attention import RemoteAttention

SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the checkpoint")
    parser.add_argument("--server", default="localhost:50051", help="HOST:PORT of an attend server (default: %(default)s)")
    parser.add_argument("--name", default="minilm", help="what the layers are called, before /0, /1, ... (default: %(default)s)")
    parser.add_argument("--upload", action="store_true", help="upload the attention layers first")
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="what to compare (default: three sentences)")
    flags = parser.parse_args()
    with grpc.insecure_channel(flags.server) as channel:
        attention = RemoteAttention(channel, flags.name)
        encoder = SentenceEncoder(flags.model, attention)
        if flags.upload:
            attention.upload(encoder.weights, encoder.config)
        embeddings = encoder.encode(flags.sentences)
    for similarities, sentence in zip(embeddings @ embeddings.T, flags.sentences, strict=True):
        print(" ".join(f"{one:7.4f}" for one in similarities), "", sentence)


if __name__ == "__main__":
    main()
