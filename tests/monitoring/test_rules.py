"""Rules and dashboards: every rule is sound, every alert has its page, every panel asks for what is there."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from gaussline.worker.commands.exporter import PORT
from gaussline.worker.commands.units import BRIDGE_PORT, CAMERA_PORT, JUDGE_PORT, LEARNER_PORT
from gaussline.worker.settings import Settings
from gaussline.worker.telemetry import catalogue as metrics
from tests.support.repository import ROOT
from tests.support.skips import needs_program, program

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
NAME = re.compile(r"\bgaussline[a-z0-9_:]*")


def rules(kind: str) -> list[dict[str, Any]]:
    found = []
    for name in ("recording.yaml", "alerts.yaml"):
        groups = yaml.safe_load((PROMETHEUS / name).read_text("utf-8"))["groups"]
        found += [rule for group in groups for rule in group["rules"] if kind in rule]
    return found


def exposed() -> set[str]:
    """Names of all series that processes expose or rules record."""
    names = {series for metric in metrics.catalogue() for series in metric.series}
    return names | {rule["record"] for rule in rules("record")}


def dashboards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dashboards"] = module
    if str(GRAFANA) not in sys.path:
        sys.path.append(str(GRAFANA))
    spec.loader.exec_module(module)
    return module


def expressions(page: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in page["panels"] for target in panel.get("targets", ())]


WORDS = [("check", "rules", "recording.yaml", "alerts.yaml"), ("test", "rules", "rules.test.yaml")]


@needs_program("prometheus", "prometheus")
@pytest.mark.parametrize("words", WORDS, ids=["check", "test"])
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    promtool = Path(program("prometheus", "prometheus")).with_name("promtool")
    done = subprocess.run([promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_program("prometheus", "prometheus")
@pytest.mark.parametrize("name", ["prometheus.yaml", "compose.yaml"])
def test_promtool_reads_the_configuration(name: str) -> None:
    promtool = Path(program("prometheus", "prometheus")).with_name("promtool")
    done = subprocess.run([promtool, "check", "config", PROMETHEUS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_program("amtool", "prometheus-alertmanager")
def test_alertmanager_reads_its_configuration_and_pages_for_what_is_critical() -> None:
    amtool, file = program("amtool", "prometheus-alertmanager"), PROMETHEUS / "alertmanager.yaml"
    subprocess.run([amtool, "check-config", file], check=True, capture_output=True)
    for severity, receiver in (("critical", "pager"), ("warning", "operator")):
        words = [amtool, "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
        assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.split() == [receiver]
    alerts = {rule["alert"]: rule for rule in rules("alert")}
    for rule in yaml.safe_load(file.read_text("utf-8"))["inhibit_rules"]:
        named = re.findall(r"Gaussline\w+", str(rule))
        assert len(named) > 1
        for name in named:
            assert name in alerts
            for label in set(rule["equal"]) - {"line"}:
                assert label in alerts[name]["annotations"]["summary"] + alerts[name]["expr"], f"{name} has no {label}"


def test_every_alert_is_tested_and_has_its_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    tested = (PROMETHEUS / "rules.test.yaml").read_text("utf-8")
    books = json.loads((GRAFANA / "gaussline-runbooks.json").read_text("utf-8"))
    shown = {panel["title"]: f"/d/{books['uid']}?viewPanel={panel['id']}" for panel in books["panels"]}
    for rule in rules("alert"):
        place, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert place == "docs/operations.md"
        assert rule["annotations"]["runbook_url"] == "{{ $externalLabels.grafana }}" + shown[anchor]
        section = page.split(f"\n## {anchor}\n")
        assert len(section) == 2, f"{rule['alert']} has no page {anchor}"
        for word in ("**Means**", "**First look**", "**Do**", "**Silence**"):
            assert word in section[1].split("\n## ")[0], f"{anchor} lacks {word}"
        assert f"alertname: {rule['alert']}\n        exp_alerts:\n" in tested, f"{rule['alert']} is never seen to fire"
        assert rule["labels"]["severity"] in {"critical", "warning"}


def waited_for(method: str) -> set[str]:
    """Alerts that tests of a real line wait for, by `site.fires` or `site.ends`."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                found |= {str(each.value) for each in node.args if isinstance(each, ast.Constant)}
    return found


def test_every_alert_is_fired_by_its_real_fault_and_ends_in_some_test() -> None:
    alerts = {rule["alert"] for rule in rules("alert")}
    assert waited_for("fires") == alerts
    assert waited_for("ends") == alerts


def test_the_check_of_all_of_them_runs_the_slow_faults() -> None:
    """pytest leaves out a file that stands beside its own folder, and says nothing."""
    recipe = (ROOT / "Makefile").read_text("utf-8").split("\nmonitoring-check:")[1].split("\n\n")[0]
    words = [word for word in shlex.split(recipe.split("pytest", 1)[1]) if word != "$(ARGS)"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line} >= {
        f"tests/monitoring/{name}.py" for name in ("test_rules", "test_site", "slow_faults")
    }


def test_rules_ask_only_for_what_is_exposed() -> None:
    for rule in [*rules("record"), *rules("alert")]:
        missing = set(NAME.findall(rule["expr"])) - exposed()
        assert not missing, f"{rule.get('alert', rule.get('record'))} asks for {missing}"


def test_the_dashboards_are_those_of_the_code_and_ask_only_for_what_is_exposed() -> None:
    made = dashboards()
    assert {f"{page.uid}.json" for page in made.ALL} == {path.name for path in GRAFANA.glob("*.json")}
    for page in made.ALL:
        text = (GRAFANA / f"{page.uid}.json").read_text("utf-8")
        assert text == made.build(page), "run: make docs"
        read = json.loads(text)
        for expression in expressions(read):
            missing = set(NAME.findall(expression)) - exposed()
            assert not missing, f"{page.uid}: {expression} asks for {missing}"
        for panel in read["panels"]:
            if panel["type"] != "text":
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            queries = [target["refId"] for target in panel.get("targets", ())]
            assert all(queries)
            assert len(set(queries)) == len(queries), "Grafana shows one query of a name"


def test_links_of_panels_lead_to_their_runbooks() -> None:
    books = json.loads((GRAFANA / "gaussline-runbooks.json").read_text("utf-8"))
    shown = {f"/d/{books['uid']}?viewPanel={panel['id']}": panel for panel in books["panels"]}
    linked = 0
    for page in dashboards().PAGES:
        told = {panel.title: panel.book for panel in page.panels}
        for panel in json.loads((GRAFANA / f"{page.uid}.json").read_text("utf-8"))["panels"]:
            urls = [link["url"] for link in panel.get("links", ())]
            assert [shown[url]["title"] for url in urls] == [book for book in (told[panel["title"]],) if book]
            linked += len(urls)
    assert linked > 20
    anchors = {rule["annotations"]["runbook"].partition("#")[2] for rule in rules("alert")}
    assert anchors == {panel["title"] for panel in shown.values()}
    for panel in shown.values():
        content = panel["options"]["content"]
        assert "**Do**" in content
        for target in re.findall(r"]\(([^)]*)\)", content):
            assert target in shown, f"{panel['title']}: {target} leads nowhere in Grafana"


def test_the_page_of_metrics_is_made_from_the_code() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == metrics.page(), "run: make docs"


def test_the_configuration_names_files_that_are_there() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text("utf-8"))
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])
    jobs = [part["targets"] for job in config["scrape_configs"] for part in job["static_configs"]]
    ports = {target.rsplit(":", 1)[1] for targets in jobs for target in targets}
    own = {LEARNER_PORT, JUDGE_PORT, CAMERA_PORT, BRIDGE_PORT, PORT, Settings.model_fields["http_port"].default}
    assert ports == {str(port) for port in own}
