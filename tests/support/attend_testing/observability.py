"""deploy/observability as Grafana and Prometheus read it."""

import json
import pathlib
import re

from attend_testing.server import SOURCE_DIR

FOLDER = SOURCE_DIR / "deploy" / "observability"
RULES = FOLDER / "attend.rules.yaml"
DASHBOARD = FOLDER / "dashboard.json"


def dashboard_queries(job="attend", instance=".*", interval="1m"):
    """(panel's title, PromQL) of each query, its variables filled in."""
    queries = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", interval).replace("$job", job)
            queries.append((panel["title"], query.replace("$instance", instance)))
    return queries


def alert_names():
    return re.findall(r"^\s*- alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def hurried_rules(path: pathlib.Path, seconds=2, window=15):
    """Writes the rules so that faults of seconds are enough: each `for` is `seconds`, each range `window` seconds."""
    text = re.sub(r"^(\s*for:) \S+$", rf"\1 {seconds}s", RULES.read_text(), flags=re.MULTILINE)
    path.write_text(re.sub(r"\[\d+m\]", f"[{window}s]", text))


def metric_names(query):
    """Of metrics of attend-server and of the gRPC ecosystem that stand in `query`."""
    return set(re.findall(r"\b(?:attend|grpc_server|process)_\w+(?=\{)", query))
