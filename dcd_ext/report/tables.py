"""The comparison as tables."""

from typing import Any

from dcd_ext.evaluation import METRICS
from dcd_ext.tables import Table

_RESTS_ON_CASES = (
    "p-values and intervals rest on the cases of one training per run and leave out the spread between trainings: a "
    "small p says that these weights differ, not that the methods do."
)
_RESTS_ON_TRAININGS = (
    "The interval and the first p rest on trainings and cases together; a dash means fewer than four trainings of the "
    "two methods. The other p-values, of means over the trainings, rest on the cases alone and say nothing of new "
    "trainings."
)
_TITLES_OF_CLASSES = {"mean": "mean of classes"}


def metric_title(comparison: dict[str, Any], metric: str) -> str:
    """Name of a metric with its unit."""
    return METRICS[metric].title.format(comparison["nsd_tolerance_mm"])


def all_tables(comparison: dict[str, Any]) -> dict[str, list[Table]]:
    """Tables of the sections ``scores``, ``differences`` and ``cost``."""
    return {
        "scores": [_scores(comparison, m) for m in comparison["metrics"]],
        "differences": [_differences(comparison, m) for m in comparison["metrics"]],
        "cost": [_cost(comparison), _masks(comparison)],
    }


def _scores(comparison: dict[str, Any], metric: str) -> Table:
    """Mean per run and class with its SEM or, over several trainings, its SD; the best of each class is bold."""
    classes, runs, results = comparison["classes"], list(comparison["runs"]), comparison["results"][metric]
    sign = 1 if METRICS[metric].higher_is_better else -1
    show = _mean_sd if comparison["several_trainings"] else _mean_sem
    table = Table(
        f"{metric_title(comparison, metric)} – {'higher' if sign > 0 else 'lower'} is better",
        ["run", *(_TITLES_OF_CLASSES.get(c, c) for c in classes)],
        [[run, *(show(results[c][run], metric) for c in classes)] for run in runs],
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
    if comparison["several_trainings"]:
        counts = ", ".join(f"{run} {comparison['runs'][run]['trainings']}" for run in runs)
        table.header[0] = "method"
        table.note = f"Mean ± standard deviation over trainings: {counts}."
    return table


def _differences(comparison: dict[str, Any], metric: str) -> Table:
    base, gap, several = comparison["baseline"], comparison["teacher"] is not None, comparison["several_trainings"]
    header = ["run", "class", "difference", "95 % interval", "pairs", "t-test p", "Wilcoxon p"]
    if several:
        header = ["method", *header[1:5], "p (trainings and cases)", *(f"{test} (cases)" for test in header[5:])]
    rows = [
        _difference_row(run, name, entry[run], metric, gap, several)
        for run in comparison["runs"]
        if run != base
        for name, entry in comparison["results"][metric].items()
    ]
    title = f"{metric_title(comparison, metric)}: paired difference to {base}"
    note = _RESTS_ON_TRAININGS if several else _RESTS_ON_CASES
    return Table(title, [*header, "gap recovered"] if gap else header, rows, note)


def _difference_row(run: str, name: str, entry: dict[str, Any], metric: str, gap: bool, several: bool) -> list[str]:
    d = entry["difference"]
    interval = "–" if d["ci95"] is None else " to ".join(f"{v:+.{METRICS[metric].digits}f}" for v in d["ci95"])
    pairs = str(d["n"]) + (f" ({d['unpaired']} unpaired)" if d["unpaired"] else "")
    tests = [p_text(d[f"{test}_p_holm"]) for test in (("trainings",) if several else ()) + ("t", "wilcoxon")]
    row = [run, _TITLES_OF_CLASSES.get(name, name), _mean_sem(d, metric, "+"), interval, pairs, *tests]
    share = entry.get("gap_recovered")
    return [*row, "–" if share is None else f"{100 * share:.0f} %"] if gap else row


def _cost(comparison: dict[str, Any]) -> Table:
    rows = []
    for name, cost in comparison["runs"].items():
        flops, seconds, epochs = cost["flops_per_patch"], cost["training_seconds"], cost["epochs"]
        gflops = "–" if flops is None else f"{flops / 1e9:.1f}"
        minutes = "–" if seconds is None else f"{seconds / 60:.0f}"
        cpu = "–" if cost["cpu_seconds"] is None else f"{cost['cpu_seconds']:.0f}"
        row = [name, f"{cost['parameters'] / 1e6:.3f}", gflops, f"{cost['seconds_per_case']:.2f}", minutes, cpu]
        rows.append([*row, "–" if epochs is None else str(epochs)])
    patch = next((c["patch"] for c in comparison["runs"].values() if c["patch"]), None)
    size = "" if patch is None else f" of {' × '.join(map(str, patch))}"
    header = ["run", "parameters (M)", "GFLOPs per patch", "seconds per case", "training (min)", "CPU s", "epochs"]
    devices = sorted({c["device"] for c in comparison["runs"].values() if c["device"]})
    note = (
        f"One patch{size}, multiplications and additions both counted. Seconds on {', '.join(devices) or 'one device'}."
    )
    return Table("Cost", header, rows, note)


def _masks(comparison: dict[str, Any]) -> Table:
    rows = [[n, *(f"{c[k]:g}" for k in ("missed", "false_alarm", "empty"))] for n, c in comparison["runs"].items()]
    note = "Masks, that is cases times classes, per training. " + comparison["empty_rule"].capitalize() + "."
    return Table("Missed and false-alarm masks", ["run", "missed", "false alarms", "both empty (excluded)"], rows, note)


def _mean_sem(entry: dict[str, Any] | None, metric: str, sign: str = "") -> str:
    if entry is None or entry["mean"] is None:
        return "–"
    digits = f".{METRICS[metric].digits}f"
    return f"{entry['mean']:{sign}{digits}}" + ("" if entry["sem"] is None else f" ± {entry['sem']:{digits}}")


def _mean_sd(entry: dict[str, Any], metric: str) -> str:
    """Over trainings; a run of one has no deviation, and its mean stands alone."""
    over = entry.get("trainings") or {"sd": None}
    return _mean_sem({"mean": entry["mean"], "sem": over["sd"]}, metric)


def p_text(p: float | None) -> str:
    """A p-value with four decimals, or ``< 0.0001``."""
    if p is None:
        return "–"
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
