"""The admin door as a probe and as Prometheus see it, parsed by Prometheus' own client library."""

import http.client

from prometheus_client.parser import text_string_to_metric_families

from attend_testing.server import PATIENCE


def ask(port, path, method="GET", body=None):
    """(status, headers, body) of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


class Scrape:
    """One page of /metrics."""

    def __init__(self, port):
        status, self.headers, self.text = ask(port, "/metrics")
        if status != 200:
            raise AssertionError(f"/metrics: {status} {self.text}")
        self.families = {family.name: family for family in text_string_to_metric_families(self.text)}
        self._values = {}
        for family in self.families.values():
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                if key in self._values:
                    raise AssertionError(f"two samples of {key}")
                self._values[key] = sample.value

    def value(self, name, **labels):
        """Of the one series with these labels and no others; KeyError when it is not there."""
        return self._values[name, frozenset(labels.items())]

    def sum(self, name, **labels):
        """Over all series that have these labels, perhaps among others."""
        wanted = labels.items()
        return sum(value for (key, of), value in self._values.items() if key == name and wanted <= of)

    def labels(self, name):
        return [dict(labels) for key, labels in self._values if key == name]
