"""The sweep: one process for each model class, a JSON file for each model type.

Usage: sweep.py LINE [--jobs N] [--only REGEX] [--again]      LINE: the name of a folder in build/models
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import sys
import time
import traceback

SECONDS, BYTES = 400, 7 << 30  # Of one model class.
OUTPUT = pathlib.Path(os.environ["ATTEND_MODELS_DIR"])


def _limit():
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)


def _write(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1))
    part.rename(path)


def _child(case, path):
    _limit()
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import one_model

    started = time.monotonic()
    try:
        result = one_model.run(case)
    except BaseException as error:
        traceback.print_exc()
        result = {"excluded": f"{type(error).__name__}: {str(error)[:600]}", "layers": []}
    _write(
        path, {"case": case["name"], "type": case["type"], "class": case["class"], "seconds": round(time.monotonic() - started, 1)} | result
    )
    os._exit(0)


def sweep(cases, directory, jobs, again):
    directory.mkdir(parents=True, exist_ok=True)
    waiting = [case for case in cases if again or not (directory / f"{case['name']}.json").exists()]
    running, done = {}, 0
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop(0)
            path = directory / f"{case['name']}.json"
            pid = os.fork()
            if pid == 0:
                os.setpgid(0, 0)
                _child(case, path)
            running[pid] = (case, path, time.time())
        pid, status = os.wait()
        case, path, started = running.pop(pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # A server that a process left behind, when its time was up.
        done += 1
        if status != 0:
            how = f"signal {status & 127} after {time.time() - started:.0f} s" if status & 127 else f"exit {status >> 8}"
            _write(
                path,
                {"case": case["name"], "type": case["type"], "class": case["class"], "excluded": f"the process ended: {how}", "layers": []},
            )
        result = json.loads(path.read_text())
        print(f"{done}/{done + len(waiting) + len(running)} {case['name']}: {_brief(result)}", flush=True)


def _brief(result):
    if result.get("excluded"):
        return "excluded: " + result["excluded"][:150]
    return ", ".join(sorted({f"{layer['verdict']} {layer.get('reason', '')[:90]}".strip() for layer in result["layers"]})) or "no layers"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("line")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    import one_model

    cases = one_model.cases(arguments.line)
    _write(OUTPUT / arguments.line / "_cases.json", cases)
    sweep(
        [case for case in cases if re.search(arguments.only, case["name"]) and case["class"]],
        OUTPUT / arguments.line,
        arguments.jobs,
        arguments.again,
    )


if __name__ == "__main__":
    sys.exit(main())
