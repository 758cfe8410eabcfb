"""What calls the cluster's services from the node's network (`cluster.sh exec`): no pod, so that it outlives them.

    python3 caller.py load DOOR_AS_JSON TOKEN FILE     calls, closed loop, four at a time, until FILE exists; prints
                                                       {"calls": N, "failures": ["CODE details", ...]}
    python3 caller.py serial DOOR_AS_JSON              prints the serial number of the certificate that a new connection sees
"""

import json
import pathlib
import sys
import threading

import grpc

from attend_testing.doors import Door
from attend_testing.good_client import METHOD, small_request

# A client that watches health, as gRPC's own load balancing does when it is told to: a server that drains says NOT_SERVING for
# drain-wait before it refuses, and such a client starts no more calls there. One that does not watch hears UNAVAILABLE.
WATCHES_HEALTH = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE"]},
        }
    ],
}  # fmt: skip
OPTIONS = (
    ("grpc.enable_retries", 1),
    ("grpc.service_config", json.dumps(WATCHES_HEALTH)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def load(door, token, until):
    calls, failures, lock = 0, [], threading.Lock()
    payload, metadata = small_request().SerializeToString(), ((("authorization", f"Bearer {token}"),) if token else ())

    def run():
        nonlocal calls
        with door.channel(*OPTIONS) as channel:
            method = channel.unary_unary(METHOD)
            while not until.exists():
                failure = None
                try:
                    method(payload, timeout=30, metadata=metadata, wait_for_ready=True)
                except grpc.RpcError as error:
                    failure = f"{error.code().name} {error.details()}"
                with lock:
                    calls += 1
                    failures.extend([failure] if failure else [])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"calls": calls, "failures": failures}))


def main():
    what, door, *rest = sys.argv[1:]
    if what == "load":
        load(Door.from_json(door), rest[0], pathlib.Path(rest[1]))
    else:
        with Door.from_json(door).connect(timeout=5) as connection:
            print(connection.getpeercert()["serialNumber"])


if __name__ == "__main__":
    main()
