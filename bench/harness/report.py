"""Turns series into rows and rows into tables. A row's cost is the median of its runs; lower is better."""

import json
import statistics

# The share by which the runs of a row may differ, (largest - smallest) / median, before the row is not to be trusted.
MAX_SPREAD = 0.15
PEERS = ("envoy", "haproxy")


def rows(series):
    """One row a case and proxy, as `-o json` prints them."""
    costs = {(one.case, one.proxy): _median(one) for one in series}
    return [_row(one, costs) for one in series]


def _median(one):
    return statistics.median(run.cost for run in one.runs)


def _row(one, costs):
    cost = costs[one.case, one.proxy]
    row = {"case": one.case, "proxy": one.proxy, "unit": one.unit, "cost": _rounded(cost)}
    for peer in PEERS:
        base = costs.get((one.case, peer))
        row[f"ratio_{peer}"] = round(cost / base, 3) if base and base > 0 else None
    for role in one.runs[0].parts:
        row[role] = _rounded(statistics.median(run.parts[role] for run in one.runs))
    rates = [run.rate for run in one.runs if run.rate is not None]
    if rates:
        row["per_second"] = _rounded(statistics.median(rates))
    row["runs"] = [_rounded(run.cost) for run in one.runs]
    row["spread"] = round(_spread(row["runs"], cost), 3)
    row["noisy"] = _is_noisy(one, row["spread"])
    return row


def _spread(costs, median):
    return (max(costs) - min(costs)) / median if median > 0 else 0.0


def _is_noisy(one, spread):
    disturbed = sum(run.disturbance is not None and run.disturbance.is_disturbed() for run in one.runs)
    return spread > MAX_SPREAD or disturbed * 2 > len(one.runs)


def _rounded(value):
    return float(f"{value:.4g}")


def noise(series):
    """The machine's verdict over all runs: `quiet` or `noisy`, and why."""
    seen = [run.disturbance for one in series for run in one.runs if run.disturbance is not None]
    noisy_rows = sum(row["noisy"] for row in rows(series))
    worst = {
        "runs": len(seen),
        "disturbed_runs": sum(one.is_disturbed() for one in seen),
        "median_foreign_share": round(statistics.median([one.foreign for one in seen] or [0]), 3),
        "worst_foreign_share": round(max([one.foreign for one in seen], default=0), 3),
        "worst_steal_share": round(max([one.steal for one in seen], default=0), 3),
        "worst_slowness": round(max([one.slowness for one in seen], default=1), 3),
        "noisy_rows": noisy_rows,
        "rows": len(series),
    }
    bad = worst["disturbed_runs"] * 4 > len(seen) or noisy_rows * 4 > len(series)
    return {"verdict": "noisy" if bad else "quiet", **worst}


def machine_text(machine):
    """The machine in a few lines for people."""
    quiet = machine["noise"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cores']} cores, {machine['processor']}, {machine['memory_gb']} GB, Linux {machine['kernel']}; {versions}",
        f"noise: {quiet['verdict']} ({quiet['disturbed_runs']} of {quiet['runs']} runs disturbed, "
        f"{quiet['noisy_rows']} of {quiet['rows']} rows noisy; others on the proxies' core {quiet['median_foreign_share']:.1%} "
        f"median, {quiet['worst_foreign_share']:.1%} worst; steal {quiet['worst_steal_share']:.1%} worst; "
        f"fixed loop {quiet['worst_slowness']:.2f} times its best)",
    ]
    if quiet["verdict"] == "noisy":
        lines.append("THE MACHINE WAS TOO NOISY TO JUDGE: read no ratio closer than its row's spread, and run again.")
    lines += [f"FAILED {failure}" for failure in machine["failures"]]
    return "\n".join(lines)


def table(found):
    """The rows for people."""
    heads = ["case", "proxy", "cost", "unit", "out + in", "per second", "÷ Envoy", "÷ HAProxy", "spread", ""]
    lines = [heads]
    for row in found:
        parts = " + ".join(f"{row[role]:g}" for role in ("outbound", "inbound") if role in row)
        ratios = ["" if row[f"ratio_{peer}"] is None else f"{row[f'ratio_{peer}']:.2f}" for peer in PEERS]
        rate = row.get("per_second")
        rate = "" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        lines.append([row["case"], row["proxy"], f"{row['cost']:g}", row["unit"], parts,
                      rate, *ratios, f"{row['spread']:.0%}", "noisy" if row["noisy"] else ""])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    texts, last = [], None
    for line in lines:
        if last not in (None, "case", line[0]):
            texts.append("")
        texts.append("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        last = line[0]
    return "\n".join(texts)


def as_json(value):
    """Indented JSON, a line for each row of a list."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in value) + "\n]"
    return json.dumps(value, ensure_ascii=False, indent=1)
