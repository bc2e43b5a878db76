"""Writes docs/benchmarks.md from what the stages of `run.py` found."""

import pathlib

STAGES = {
    "metrics": "Metrics of a window",
    "warm": "Explore, warm",
    "cold": "Explore, cold from disk",
    "path": "The path of a report",
    "page": "The page",
    "growth": "Growth",
}


def write(results, rows, versions):
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    out = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. The same as data, one object a row: `benchmarks.json`.",
        "",
        f"Ours beside {peers}, those of a table in one run on the same {rows:,} reports, two threads each; each table has its own day and",
        "machine. Which peers a table has depends on what they can be asked. A figure is the median of the runs with the least and the greatest in",
        "brackets; the ratio is our cost by that of the best peer, so less is better. `must` and `reach` are the bounds that were set beforehand, of",
        "the ratio, or of our figure where it has a unit; the last column says which of them is kept. Answers were compared before times, all of",
        "them: a row stands here only where every peer answered as we did.",
        "",
    ]
    for stage, title in STAGES.items():
        out += [f"## {title}", ""]
        if stage == "growth" and stage in results:
            out += ["![Time against reports, metrics, groups and stores](growth.svg)", ""]
        out += table(results[stage]) if stage in results else ["Not measured.", ""]
    notes = pathlib.Path(__file__).with_name("notes.md").read_text()
    return "\n".join(out) + "\n" + notes


def table(stage):
    low, high = stage["load"]
    out = [
        f"{stage['date']} UTC; {stage['machine']}; load of the machine while measuring, this included: {low:.1f} to {high:.1f}.",
        "",
        "| work | ours | peers | ratio | must | reach | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in stage["rows"]:
        spread = row.get("spread", {})
        cell = lambda engine, median: figure(median, row["unit"]) + span(spread.get(engine), row["unit"], row["runs"])
        peers = row.get("peers") or ({"": row["peer"]} if row["peer"] is not None else {})
        told = "<br>".join(f"{engine} {cell(engine, median)}".strip() for engine, median in sorted(peers.items(), key=lambda one: one[1]))
        # A row without a ratio is held against its goal as it is.
        absolute = row["ratio"] is None
        goals = [bound(row[key], row["unit"] if absolute else None) for key in ("goal", "reach")]
        ratio = "" if absolute else f"{row['ratio']:.3g}"
        out.append(f"| {row['name']} | {cell('ours', row['ours'])} | {told} | {ratio} | {goals[0]} | {goals[1]} | {verdict(row)} |")
    notes = [f"{row['name']}: {row['note']}." for row in stage["rows"] if "note" in row]
    return out + [""] + [f"- {note}" for note in notes] + ([""] if notes else [])


def figure(value, unit):
    if unit == "s" and value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.4g} {unit}"


def span(spread, unit, runs):
    if spread is None or runs == 1:
        return ""
    return f" ({figure(spread[0], unit)} .. {figure(spread[1], unit)})"


def bound(goal, unit):
    if goal is None:
        return ""
    return figure(goal, unit) if unit else f"{goal:.3g}"


def verdict(row):
    if row["goal"] is None:
        return ""
    cost = row["ours"] if row["ratio"] is None else row["ratio"]
    return "**missed**" if cost > row["goal"] else "reach" if row["reach"] is not None and cost <= row["reach"] else "must"


def rounded(value):
    """Figures to four places."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    return [rounded(one) for one in value]
