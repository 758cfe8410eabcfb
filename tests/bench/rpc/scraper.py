"""/metrics as the benchmarks read it: now, or every second while something else runs."""

import http.client
import re
import threading
import time

PATIENCE = 10  # Seconds for one answer.


def read(connection):
    """The page's text. RuntimeError for another answer, OSError or HTTPException for none."""
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    page = response.read().decode()
    if response.status != 200:
        raise RuntimeError(f"/metrics answered {response.status}: {page[:200]}")
    return page


def scrape(target):
    """The page's text, over a connection of its own."""
    connection = http.client.HTTPConnection(target, timeout=PATIENCE)
    try:
        return read(connection)
    finally:
        connection.close()


def calls_arrived(page, method):
    """How many calls of this method the server has seen since its start, refused ones among them."""
    found = re.findall(rf'^grpc_server_started_total{{[^}}]*grpc_method="{method}"[^}}]*}} (\S+)$', page, re.MULTILINE)
    if len(found) != 1:
        raise RuntimeError(f"/metrics has {len(found)} series of calls of {method} that have arrived, not one")
    return float(found[0])


class Scraper:
    """Reads the page once a period for as long as it is entered, over one connection, as Prometheus does.

    Leaving it raises what went wrong, if anything did; `scrapes` says afterwards how often it was answered.
    """

    def __init__(self, target, period=1.0):
        self.scrapes = 0
        self._target, self._period = target, period
        self._stop, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise RuntimeError(f"scrape {self.scrapes + 1} failed") from self._error

    def _run(self):
        connection = http.client.HTTPConnection(self._target, timeout=PATIENCE)
        due = time.monotonic() + self._period / 2
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                calls_arrived(read(connection), "Attend")  # Not just any page.
                self.scrapes += 1
                due += self._period
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            self._error = error
        finally:
            connection.close()
