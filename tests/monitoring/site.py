"""A monitored line: a real Redis, worker, exporter and Prometheus, with the rules as they are shipped."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from gaussline.worker.broker.embedded import EmbeddedRedis
from tests.commands.workers import WorkerProcess, start_worker
from tests.support.cli import Cli
from tests.support.forked import ForkedCommand
from tests.support.repository import ROOT
from tests.support.skips import program
from tests.support.waiting import eventually

SCRAPE_S = 1
_NUMBERS = itertools.count(1)
JOBS = ("worker", "exporter", "learner", "judge", "producer", "bridge")
"""Who is scraped, in the order of the shipped configuration."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


class Site:
    """One line and what watches it, until the end of the `with`."""

    def __init__(self, server: EmbeddedRedis, folder: Path, scrape_s: int | None = SCRAPE_S, **exporter: str) -> None:
        """`scrape_s`: how often is scraped and ruled; None as shipped."""
        self.cli = Cli(server.url, f"line{os.getpid()}x{next(_NUMBERS)}")
        self._exporter_settings = exporter
        self.ports = {name: free_port() for name in (*JOBS, "prometheus", "alertmanager")}
        self._folder = folder
        self._scrape_s = scrape_s
        self._started: list[subprocess.Popen[str]] = []
        try:
            self.exporter()
            self._prometheus()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    # --- processes ---------------------------------------------------------------------------------------------------
    def worker(self, **settings: str) -> WorkerProcess:
        """Start the worker that Prometheus scrapes."""
        port = {"GAUSSLINE_HTTP_PORT": str(self.ports["worker"]), "GAUSSLINE_WORKER_NAME": "w1"}
        return start_worker(self.cli, **port | settings)  # type: ignore[arg-type]

    def learner(self, **settings: str) -> ForkedCommand:
        """Start the learner that Prometheus scrapes."""
        process = self.cli.fork("learn", "default", "--http-port", str(self.ports["learner"]), **settings)
        threading.Thread(target=lambda: list(process.stderr or ()), daemon=True).start()
        return process

    def exporter(self) -> subprocess.Popen[str]:
        """Start the exporter; it answers when this returns."""
        process = self.cli.start("exporter", "--http-port", str(self.ports["exporter"]), **self._exporter_settings)
        threading.Thread(target=lambda: list(process.stderr or ()), daemon=True).start()
        url = f"http://127.0.0.1:{self.ports['exporter']}/readyz"
        eventually(lambda: _answers(url), within_s=60.0, what="the exporter")
        return process

    def _prometheus(self) -> None:
        shipped = ROOT / "deploy" / "prometheus"
        config = yaml.safe_load((shipped / "prometheus.yaml").read_text("utf-8"))
        if self._scrape_s is not None:
            config["global"] |= dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{self._scrape_s}s")
        config["rule_files"] = [str(shipped / name) for name in config["rule_files"]]
        for job, name in zip(config["scrape_configs"], JOBS, strict=True):
            job["static_configs"] = [{"targets": [f"127.0.0.1:{self.ports[name]}"]}]
            # A port is free for a moment only: what another site serves there is not of this line.
            own = {"source_labels": ["line"], "regex": f"|{self.cli.line}", "action": "keep"}
            job["metric_relabel_configs"] = [own]
        told = config["alerting"]["alertmanagers"][0]["static_configs"][0]
        told["targets"] = [f"127.0.0.1:{self.ports['alertmanager']}"]
        file = self._folder / "prometheus.yaml"
        file.write_text(yaml.safe_dump(config), "utf-8")
        words = [
            program("prometheus", "prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}",
            "--log.level=error",
        ]
        self._started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True))
        url = f"http://127.0.0.1:{self.ports['prometheus']}/-/ready"
        eventually(lambda: _answers(url), within_s=30.0, what="Prometheus")

    def alertmanager(self) -> None:
        """Start Alertmanager, as it is shipped; it answers when this returns."""
        address = f"127.0.0.1:{self.ports['alertmanager']}"
        words = [
            str(Path(program("amtool", "prometheus-alertmanager")).with_name("prometheus-alertmanager")),
            f"--config.file={ROOT / 'deploy' / 'prometheus' / 'alertmanager.yaml'}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            "--log.level=error",
        ]
        self._started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True))
        eventually(lambda: _answers(f"http://{address}/-/ready"), within_s=30.0, what="Alertmanager")

    def _close(self) -> None:
        self.cli.close()
        for process in self._started:
            process.terminate()
            process.wait(20.0)

    # --- what Prometheus knows ---------------------------------------------------------------------------------------
    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's series."""
        found: list[dict[str, Any]] = self._ask("query", query=expression)["result"]
        return found

    def firing(self, **labels: str) -> set[str]:
        """Names of the alerts that fire now, of those with these labels."""
        found = [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {each["labels"]["alertname"] for each in found if labels.items() <= each["labels"].items()}

    def told(self) -> dict[str, dict[str, Any]]:
        """What Alertmanager holds of this line, by the alert's name."""
        url = f"http://127.0.0.1:{self.ports['alertmanager']}/api/v2/alerts"
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return {each["labels"]["alertname"]: each for each in json.load(answer)}

    def fires(self, *alerts: str, within_s: float, **labels: str) -> None:
        """Wait until these alerts fire."""
        self._wait(lambda: set(alerts) <= self.firing(**labels), within_s, f"{alerts} {labels}")

    def ends(self, *alerts: str, within_s: float, **labels: str) -> None:
        """Wait until none of these alerts fires."""
        self._wait(lambda: not set(alerts) & self.firing(**labels), within_s, f"the end of {alerts} {labels}")

    def _wait(self, look: Callable[[], bool], within_s: float, what: str) -> None:
        try:
            eventually(look, within_s=within_s, what=what, every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}; firing: {sorted(self.firing())}") from None

    def _ask(self, what: str, **words: str) -> Any:
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{what}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return json.load(answer)["data"]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
