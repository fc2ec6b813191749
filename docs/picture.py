#!/usr/bin/env python3
"""Draws docs/demo.svg from a run's report.json: docs/picture.py poolwright-demo/report.json > docs/demo.svg"""
import json
import math
import sys
import textwrap
from html import escape

WIDTH, HEIGHT = 900, 470
INK, FAINT, LINE, GOOD, BAD, BAR = "#1b2330", "#67717f", "#d8dee6", "#1a7f4b", "#b3372f", "#3b6fb6"


def text(x, y, words, size=14, fill=INK, weight=400, anchor="start"):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{fill}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(str(words))}</text>'
    )


def number(value, digits=3):
    """Three significant digits, without an exponent; a dash where nothing was measured."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    figures = f"{value:,.{min(places, 2)}f}"
    return figures.rstrip("0").rstrip(".") if "." in figures else figures


def at_target(phase):
    """The run at the target's rate: the one that the phase's own figures are taken from."""
    runs = [run for run in phase["runs"] if run["p95_ms"] == phase["p95_ms"] and run["samples"]]
    return next(iter(runs), {"saturated": False})


def latencies(report):
    """Bars on a logarithmic axis: P95 of an operation, phase by phase, with the target across."""
    phases, target = report["phases"], report["targets"]["p95_ms"]
    values = [phase["p95_ms"] for phase in phases if phase["p95_ms"]]
    low, high = min(values + [target]) / 2, max(values + [target]) * 1.6
    top, bottom, left, step = 118, 330, 60, 88

    def height(value):
        return bottom - (bottom - top) * math.log(value / low) / math.log(high / low)

    out = [text(left, 92, "P95 latency of an operation, ms (logarithmic)", 14, INK, 600)]
    for place, phase in enumerate(phases):
        x, p95 = left + place * step, phase["p95_ms"]
        if p95:
            y = height(p95)
            fill = GOOD if p95 < target else BAR
            out.append(f'<rect x="{x}" y="{y:.0f}" width="56" height="{bottom - y:.0f}" rx="3" fill="{fill}"/>')
            bound = "≥ " if at_target(phase)["saturated"] else ""
            out.append(text(x + 28, y - 7, bound + number(p95), 13, INK, 600, "middle"))
        out.append(text(x + 28, bottom + 19, phase["name"], 13, INK, 400, "middle"))
    y = height(target)
    end = left + len(phases) * step - 20
    out.append(f'<line x1="{left - 10}" y1="{y:.0f}" x2="{end}" y2="{y:.0f}" stroke="{BAD}" stroke-dasharray="5 4"/>')
    out.append(text(end + 4, y + 4, f"target {number(target)}", 12, BAD))
    out.append(f'<line x1="{left - 10}" y1="{bottom}" x2="{end}" y2="{bottom}" stroke="{LINE}"/>')
    return out


def checks(report):
    out, x = [], 585
    for place, check in enumerate(report["verdict"]["checks"]):
        y = 96 + place * 66
        mark, fill = ("✓", GOOD) if check["passed"] else ("✗", BAD)
        out.append(text(x, y, mark, 20, fill, 700))
        _, _, remark = check["measured_at"].partition("; ")
        if remark and not check["passed"]:
            out.append(text(x + 26, y + 41, remark, 11, BAD))
        out.append(text(x + 26, y, f'{check["name"]}, {check["unit"]}', 13, FAINT))
        first = report["phases"][0]
        bound = check["before"] == first["p95_ms"] and at_target(first)["saturated"]
        figures = f'{"≥ " if bound else ""}{number(check["before"])}  →  {number(check["after"])}'
        out.append(text(x + 26, y + 24, figures, 20, INK, 600))
        out.append(text(x + 286, y + 24, f'target {number(check["target"])}', 12, FAINT, 400, "end"))
    return out


def foot(report):
    about, rates = report["environment"], [run["offered_ops"] for run in report["phases"][0]["runs"] if not run["search"]]
    indexes = textwrap.wrap(", ".join(index["name"] for index in report["indexes"] if index["kept"]), 110)
    kinds = sorted({finding["kind"].replace("_", " ") for finding in report["findings"] if finding["applied"]})
    scale = "" if about["scale"] is None else f', scale {about["scale"]:g}'
    quick = " --quick (no proof)" if about["quick"] else ""
    rate = f" Offered: {number(max(rates))} operations/s." if rates else ""
    return [
        text(50, 376, f"Indexes kept: {indexes[0] if indexes else 'none'}", 12, FAINT),
        text(50, 393, " ".join(indexes[1:]), 12, FAINT),
        text(50, 412, f"Queries repaired: {', '.join(kinds) or 'none'}", 12, FAINT),
        text(
            50,
            440,
            f'script/demo{quick} on {about["cores"]} cores, PostgreSQL {about["postgres"].split()[0]}'
            f'{scale}, seed {about["seed"]}.{rate}',
            12,
            FAINT,
        ),
    ]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        report = json.load(file)
    passed = report["verdict"]["passed"]
    words = "Passed: all targets hold" if passed else "Not passed: a target was missed"
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
    )
    print(f"<title>{escape(words)}</title>")
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#fbfcfe" stroke="{LINE}"/>')
    print(text(50, 50, words, 24, GOOD if passed else BAD, 700))
    print("\n".join(latencies(report) + checks(report) + foot(report)))
    print("</svg>")


if __name__ == "__main__":
    main()
