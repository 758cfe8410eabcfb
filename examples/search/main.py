"""A search engine out of attention: which of these texts answers the question? Every attention is computed by an attend server.

    main.py --model DIRECTORY [--server HOST:PORT] [--upload] [--texts FILE] [--top 5] QUESTION ...

DIRECTORY has config.json, vocab.txt and model.safetensors of all-MiniLM-L6-v2 (scripts/minilm.sh). The server has the layers
`minilm/0` to `minilm/5`, from its own configuration or, with --upload, from here.
"""

import argparse
import pathlib
import sys

import attend

from search import Search

TEXTS = pathlib.Path(__file__).with_name("texts.txt")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the checkpoint")
    parser.add_argument("--server", default=None, help="HOST:PORT of an attend server (default: ATTEND_ENDPOINTS, localhost:50051)")
    parser.add_argument("--name", default="minilm", help="what the layers are called, before /0, /1, ... (default: %(default)s)")
    parser.add_argument("--upload", action="store_true", help="upload the attention layers first")
    parser.add_argument("--texts", type=pathlib.Path, default=TEXTS, help="a text on each line (default: %(default)s)")
    parser.add_argument("--top", type=int, default=5, help="how many texts are shown (default: %(default)s)")
    parser.add_argument("questions", nargs="+", metavar="QUESTION")
    flags = parser.parse_args()
    with attend.Client(flags.server) as client:
        search = Search(client, flags.model, flags.name, upload=flags.upload)
        search.add(flags.texts.read_text(encoding="utf-8").splitlines())
        for question, hits in zip(flags.questions, search.ask(flags.questions, flags.top), strict=True):
            print(question)
            for hit in hits:
                print(f"  {hit.weight:6.1%}  {hit.text}")
            seen = [(word, other, weight) for word, other, weight in search.explain(question, hits[0].text) if weight > 0.5]
            print("  because", ", ".join(f"{word!r} sees {other!r} ({weight:.0%})" for word, other, weight in seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
