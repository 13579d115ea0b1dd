"""Dashboard and alert rules name figures that there are, with labels that these have, and Prometheus takes them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from axes_async.metrics import prometheus, site

CONTRIB = Path(__file__).resolve().parents[2] / "contrib" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((CONTRIB / "dashboard.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((CONTRIB / "alerts.yaml").read_text(encoding="utf-8"))
NO_PROMTOOL = "No promtool here; on Debian and Ubuntu: apt-get install prometheus"

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OF_PANELS = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = [*OF_PANELS, *[rule["expr"] for rule in RULES]]

OF_PROMETHEUS = {"job", "instance", "le"}


def known() -> dict[str, set[str]]:
    """Return the labels of each figure, by the name of its samples."""
    names: dict[str, set[str]] = {}
    for figure in site.FIGURES:
        names[figure.name + ("_total" if figure.kind == "counter" else "")] = set(figure.labels)
    process = prometheus._process_figures()
    for metric in (process.seconds, process.steps, process.breakers, *process.counts.values()):
        suffix = {"counter": "_total", "histogram": "_bucket", "gauge": ""}[metric._type]
        names[metric._name + suffix] = set(metric._labelnames)
    return names


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_figures_and_labels_that_there_are(expression: str) -> None:
    figures = known()
    named = set(re.findall(r"\baxes_\w+", expression))
    assert named
    assert named <= figures.keys()
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression))
    for listed in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        labels |= {label.strip() for label in listed.split(",")}
    assert labels <= OF_PROMETHEUS.union(*[figures[name] for name in named])
    values = re.findall(r"\bpart=\"(\w+)\"", expression)
    assert {*values} <= {"store", "database", "broker"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_every_process_tells_of_the_site_is_not_added_up(expression: str) -> None:
    """Each instance answers the same: a sum over them would count everything twice."""
    of_site = {figure.name + ("_total" if figure.kind == "counter" else "") for figure in site.FIGURES}
    for name in of_site & {*re.findall(r"\baxes_\w+", expression)}:
        before = expression[: expression.index(name)]
        outer = re.findall(r"\b(sum|max|min)\b(?:\s+by\s+\(([^)]*)\))?", before)
        assert outer, "several instances would make several lines"
        operator, kept = outer[-1]
        assert operator in {"max", "min"} or "instance" in kept


def test_every_figure_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"\baxes_\w+", " ".join(OF_PANELS)))
    assert known().keys() == shown


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert {"title", "uid", "time", "templating", "panels"} <= DASHBOARD.keys()
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job"]
    for panel in PANELS:
        assert panel["title"]
        assert panel["type"] in {"stat", "timeseries"}
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_lies_on_another_one_or_beyond_the_edge() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert 0 < place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_every_alert_says_what_is_wrong_and_how_urgent_it_is() -> None:
    assert [group["name"] for group in ALERTS["groups"]] == ["axes_async"]
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch("Axes[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_no_alert_needs_figures_of_a_process() -> None:
    of_site = {figure.name + ("_total" if figure.kind == "counter" else "") for figure in site.FIGURES}
    for rule in RULES:
        assert {*re.findall(r"\baxes_\w+", rule["expr"])} <= of_site


def test_prometheus_itself_takes_every_expression(tmp_path: Path) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip(NO_PROMTOOL)
    plain = [expr.replace("$__rate_interval", "5m").replace("$job", ".+") for expr in OF_PANELS]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(plain)]
    panels = tmp_path / "panels.yaml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [program, "check", "rules", panels, CONTRIB / "alerts.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_the_names_that_are_documented() -> None:
    page = (CONTRIB.parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(axes_[a-z_]+)`", page)) - {"axes_status", "axes_async"}
    assert documented == {name.removesuffix("_bucket") for name in known()}
