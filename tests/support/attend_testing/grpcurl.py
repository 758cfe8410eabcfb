"""Stands in for grpcurl where it is not installed: the same calls, by reflection and JSON, for README's examples.

    grpcurl -plaintext [-d JSON] [-H 'name: value']... ADDRESS [list | package.Service/Method]

Anything else is an error, so that an example that needs the real one is noticed.
"""

import argparse
import json
import sys

import grpc

from attend_testing.reflection import asker, call_dynamically, reflected_pool
from attend_testing.server import CHANNEL_OPTIONS


def main(arguments):
    parser = argparse.ArgumentParser(prog="grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("address")
    parser.add_argument("what")
    options = parser.parse_args(arguments)
    metadata = [tuple(part.strip() for part in header.split(":", 1)) for header in options.headers]
    with grpc.insecure_channel(options.address, options=CHANNEL_OPTIONS) as channel:
        ask = asker(channel)
        if options.what == "list":
            (answer,) = ask({"list_services": ""})
            print("\n".join(service.name for service in answer.list_services_response.service))
            return 0
        data = json.loads(sys.stdin.read() if options.data == "@" else options.data)
        pool = reflected_pool(ask, options.what.split("/")[0])
        try:
            print(json.dumps(call_dynamically(channel, pool, options.what, data, metadata), indent=2))
            return 0
        except grpc.RpcError as error:
            print(f"ERROR:\n  Code: {error.code().name}\n  Message: {error.details()}", file=sys.stderr)
            return 64 + error.code().value[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
