"""The comparison as tables."""

from typing import Any

from dcd_ext.report.comparison import HIGHER_IS_BETTER
from dcd_ext.tables import Table

_TITLES = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "nsd": "NSD at {:g} mm", "lesion_f1": "Lesion-wise F1"}
_TITLES_OF_CLASSES = {"mean": "mean of classes"}


def metric_title(comparison: dict[str, Any], metric: str) -> str:
    """Name of a metric with its unit."""
    return _TITLES[metric].format(comparison["nsd_tolerance_mm"])


def all_tables(comparison: dict[str, Any]) -> dict[str, list[Table]]:
    """Tables of the sections ``scores``, ``differences`` and ``cost``."""
    return {
        "scores": [_scores(comparison, m) for m in comparison["metrics"]],
        "differences": [_differences(comparison, m) for m in comparison["metrics"]],
        "cost": [_cost(comparison), _masks(comparison)],
    }


def _scores(comparison: dict[str, Any], metric: str) -> Table:
    """Mean and SEM per run and class; the best of each class is bold."""
    classes, runs, results = comparison["classes"], list(comparison["runs"]), comparison["results"][metric]
    sign = 1 if HIGHER_IS_BETTER[metric] else -1
    table = Table(
        f"{metric_title(comparison, metric)} – {'higher' if sign > 0 else 'lower'} is better",
        ["run", *(_TITLES_OF_CLASSES.get(c, c) for c in classes)],
        [[run, *(_mean_sem(results[c][run], metric) for c in classes)] for run in runs],
    )
    for column, name in enumerate(classes, start=1):
        means = [results[name][run]["mean"] for run in runs]
        if all(m is not None for m in means):
            table.bold |= {(i, column) for i, m in enumerate(means) if sign * m == max(sign * x for x in means)}
    if metric == "hd95_mm":
        table.note = (
            "Convention that leaves missed and false-alarm masks out (not comparable between runs): "
            + "; ".join(f"{run} {_mean_sem(results[classes[-1]][run]['nan_excluded'], metric)}" for run in runs)
        )
    return table


def _differences(comparison: dict[str, Any], metric: str) -> Table:
    base, gap = comparison["baseline"], comparison["teacher"] is not None
    header = ["run", "class", "difference", "95 % interval", "pairs", "t-test p", "Wilcoxon p"]
    rows = [
        _difference_row(run, name, entry[run], metric, gap)
        for run in comparison["runs"]
        if run != base
        for name, entry in comparison["results"][metric].items()
    ]
    title = f"{metric_title(comparison, metric)}: paired difference to {base}"
    return Table(title, [*header, "gap recovered"] if gap else header, rows)


def _difference_row(run: str, name: str, entry: dict[str, Any], metric: str, gap: bool) -> list[str]:
    d = entry["difference"]
    interval = "–" if d["ci95"] is None else " to ".join(f"{v:+.{_digits(metric)}f}" for v in d["ci95"])
    pairs = str(d["n"]) + (f" ({d['unpaired']} unpaired)" if d["unpaired"] else "")
    tests = [p_text(d["t_p_holm"]), p_text(d["wilcoxon_p_holm"])]
    row = [run, _TITLES_OF_CLASSES.get(name, name), _mean_sem(d, metric, "+"), interval, pairs, *tests]
    share = entry.get("gap_recovered")
    return [*row, "–" if share is None else f"{100 * share:.0f} %"] if gap else row


def _cost(comparison: dict[str, Any]) -> Table:
    rows = []
    for name, cost in comparison["runs"].items():
        flops, seconds, epochs = cost["flops_per_patch"], cost["training_seconds"], cost["epochs"]
        gflops = "–" if flops is None else f"{flops / 1e9:.1f}"
        minutes = "–" if seconds is None else f"{seconds / 60:.0f}"
        row = [name, f"{cost['parameters'] / 1e6:.3f}", gflops, f"{cost['seconds_per_case']:.2f}", minutes]
        rows.append([*row, "–" if epochs is None else str(epochs)])
    patch = next((c["patch"] for c in comparison["runs"].values() if c["patch"]), None)
    size = "" if patch is None else f" of {' × '.join(map(str, patch))}"
    header = ["run", "parameters (M)", "GFLOPs per patch", "seconds per case", "training (min)", "epochs"]
    devices = sorted({c["device"] for c in comparison["runs"].values() if c["device"]})
    note = (
        f"One patch{size}, multiplications and additions both counted. Seconds on {', '.join(devices) or 'one device'}."
    )
    return Table("Cost", header, rows, note)


def _masks(comparison: dict[str, Any]) -> Table:
    rows = [[n, *(str(c[k]) for k in ("missed", "false_alarm", "empty"))] for n, c in comparison["runs"].items()]
    note = "Masks, that is cases times classes. " + comparison["empty_rule"].capitalize() + "."
    return Table("Missed and false-alarm masks", ["run", "missed", "false alarms", "both empty (excluded)"], rows, note)


def _digits(metric: str) -> int:
    return 2 if metric == "hd95_mm" else 4


def _mean_sem(entry: dict[str, Any] | None, metric: str, sign: str = "") -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    digits = f".{_digits(metric)}f"
    return f"{entry['mean']:{sign}{digits}}" + ("" if entry["sem"] is None else f" ± {entry['sem']:{digits}}")


def p_text(p: float | None) -> str:
    """A p-value with four decimals, or ``< 0.0001``."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
