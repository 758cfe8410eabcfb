"""The dashboard and the alert rules against a real server's page: Prometheus' own tool accepts page and rules, each alert
fires and clears on synthetic series, and every metric that is asked for is there."""

import os
import subprocess
import unittest

from attend_testing.admin import Scrape
from attend_testing.observability import FOLDER, RULES, alert_names, dashboard_queries, metric_names
from attend_testing.server import SOURCE_DIR, Server


def find_prometheus():
    found = subprocess.run([SOURCE_DIR / "scripts" / "find-prometheus.sh"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise unittest.SkipTest(found.stderr) if not os.environ.get("CI") else AssertionError(found.stderr)
    return found.stdout.strip()


def promtool(*arguments, page=None):
    command = [f"{find_prometheus()}/promtool", *arguments]
    return subprocess.run(command, input=page, capture_output=True, text=True, timeout=120, check=False)


class ObservabilityTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server("--admin-listen", "127.0.0.1:0") as server:
            cls.page = Scrape(server.admin_port)

    def test_prometheus_own_parser_accepts_the_page(self):
        result = promtool("check", "metrics", page=self.page.text)
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, ""))

    def test_the_rules_are_valid_and_every_alert_fires_and_clears_on_synthetic_series(self):
        result = promtool("check", "rules", "--lint-fatal", str(RULES))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        tests = FOLDER / "attend.rules_test.yaml"
        result = promtool("test", "rules", str(tests))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual([name for name in alert_names() if f"alertname: {name}\n" not in tests.read_text()], [])

    def test_every_metric_that_is_asked_for_is_served(self):
        served = {sample.name for family in self.page.families.values() for sample in family.samples}
        # Only with TLS; tests/integration/admin_test.py has it.
        served.add("attend_tls_certificate_expiry_timestamp_seconds")
        asked = {name for _, query in [*dashboard_queries(), ("rules", RULES.read_text())] for name in metric_names(query)}
        self.assertGreater(len(asked), 25)
        self.assertEqual(asked - served, set())


if __name__ == "__main__":
    unittest.main()
