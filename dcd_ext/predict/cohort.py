"""Many cases: what is done is skipped, a failed case does not stop the others, a summary says what happened."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from dcd_ext.data.memory import PeakMemory
from dcd_ext.errors import UserError
from dcd_ext.io import make_folder, write_json, write_text
from dcd_ext.parallel import map_processes
from dcd_ext.predict.inputs import image_sha256
from dcd_ext.predict.memory import Budget
from dcd_ext.predict.runtime import Case, Pipeline, PredictError, in_one_line

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of a case."""

    case: str
    output: str  # the label map's path
    error: str = ""  # one line, empty if the label map was written
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    peak_memory_gib: float | None = None  # of the process while the network ran
    image_sha256: str = ""  # of the case's files


def output_path(case: Case, output: Path) -> Path:
    """Where the label map of a case goes."""
    return output / f"{case.name}_seg.nii.gz"


def predict_cases(
    pipeline: Pipeline, cases: Sequence[Case], output: Path, max_ram_gib: float | None = None
) -> Iterator[Outcome]:
    """Segment cases in their order; the next is read and the last is written while the network runs."""
    budget = None if max_ram_gib is None else Budget(pipeline, max_ram_gib)
    begun = (_Work(case, Outcome(case.name, str(output_path(case, output)))) for case in cases)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        loaded = _ahead(reader, partial(_attempt, partial(_load, budget), pipeline), begun)
        segmented = map(partial(_attempt, _segment, pipeline), loaded)
        for work in _ahead(writer, partial(_attempt, _write, pipeline), segmented):
            yield work.outcome


@dataclass
class _Work:
    """A case on its way."""

    case: Case
    outcome: Outcome
    data: Any = None
    steps: Any = None
    affine: Any = None
    shape: tuple[int, ...] = ()
    labels: Any = None
    windows: int | None = None  # to compute at once

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.outcome.seconds[name] = round(time.perf_counter() - started, 4)


def _ahead(pool: ThreadPoolExecutor, step: Callable[[_Work], _Work], works: Iterator[_Work]) -> Iterator[_Work]:
    """Each after a step in the pool's thread, which does the next one's while the caller uses it."""
    coming: Future[_Work] | None = None
    for work in works:
        following = pool.submit(step, work)
        if coming is not None:
            yield coming.result()
        coming = following
    if coming is not None:
        yield coming.result()


def _load(budget: Budget | None, pipeline: Pipeline, work: _Work) -> None:
    case = work.case
    if case.problem:
        raise PredictError(f"{case.problem} – {case.name}")
    if budget is not None:
        work.windows = budget.windows(case)
    with work.phase("read"):
        image = pipeline.read(case.files)
        work.outcome.image_sha256 = image_sha256(case)
    work.affine, work.shape = image.affine, image.shape
    with work.phase("preprocess"):
        work.data, work.steps = pipeline.preprocess(image)


def _segment(pipeline: Pipeline, work: _Work) -> None:
    memory = PeakMemory()
    with work.phase("network"):
        scores = pipeline.network(work.data, work.windows)
    work.data = None
    with work.phase("postprocess"):
        labels = pipeline.postprocess(scores, work.steps)
        work.labels = labels.reshape(work.shape or labels.shape)
    work.outcome.peak_memory_gib = memory.gib()


def _write(pipeline: Pipeline, work: _Work) -> None:
    with work.phase("write"):
        pipeline.write(work.labels, work.affine, Path(work.outcome.output))
    work.labels = work.steps = None


def _attempt(step: Callable[[Pipeline, _Work], None], pipeline: Pipeline, work: _Work) -> _Work:
    """Run a step unless an earlier one failed; a failure is the case's, not the run's."""
    if not work.outcome.error:
        try:
            step(pipeline, work)
        except Exception as error:  # whatever one image provokes, the others go on
            work.outcome.error = in_one_line(error, work.case)
            # the next case may need the memory that this one did not get
            work.data = work.steps = work.labels = None
            logger.error("%s", work.outcome.error)
    return work


class Journal:
    """``summary.json`` of an output folder, from one line per case that survives a kill."""

    def __init__(self, output: Path, shard: str = "1/1") -> None:
        self._output = output
        self._folder = make_folder(output / ".dcd_predict")
        self._path = self._folder / f"{shard.replace('/', '_of_')}.jsonl"

    def add(self, outcome: Outcome) -> None:
        """Append a line, in one write, so that several processes may do it; a kill may have cut the one before."""
        with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("\n" + json.dumps(asdict(outcome), ensure_ascii=False) + "\n")

    def read(self) -> dict[str, dict[str, Any]]:
        """The last outcome of each case, of all shards so far."""
        outcomes = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError):  # a line cut by a kill
                    outcome = json.loads(line)
                    outcomes[outcome["case"]] = outcome
        return outcomes

    def write_summary(self, cases: Sequence[Case] = ()) -> dict[str, Any]:
        """A kill may have come between a label map of ``cases`` and its line: it is segmented all the same."""
        # of two shards that end together, the one that writes last has read last
        with FileLock(self._folder / "lock"):
            paths = {case.name: output_path(case, self._output) for case in cases}
            written = {name: asdict(Outcome(name, str(path))) for name, path in paths.items() if os.path.exists(path)}
            outcomes = written | self.read()
            outcomes |= {name: outcome for name, outcome in written.items() if outcomes[name]["error"]}
            failed = sum(bool(outcome["error"]) for outcome in outcomes.values())
            ordered = [outcomes[name] for name in sorted(outcomes)]
            summary = {"segmented": len(outcomes) - failed, "failed": failed, "cases": ordered}
            write_json(summary, self._output / "summary.json")
            return summary


def claim(output: Path, network: str, cases: Sequence[Case] = ()) -> None:
    """Let a folder have the label maps of one network only, given by name and fingerprint, and of these images.

    Refused are those of others, such as another patient's: they would be skipped as if they were the cases' own.
    """
    path = make_folder(output / ".dcd_predict") / "network"
    if not path.is_file():
        write_text(network, path)
    if (found := path.read_text("utf-8", "replace")) != network:
        raise UserError("label maps of another network", output, network, found, "choose another --output")
    done = {name: outcome for name, outcome in Journal(output).read().items() if not outcome["error"]}
    for case in cases:
        made_of, path = done.get(case.name, {}).get("image_sha256"), output_path(case, output)
        if made_of and os.path.exists(path) and image_sha256(case) not in ("", made_of):
            step = "choose another --output, or remove it if the image was replaced"
            raise UserError("label map of another image", path, f"that of {case.files[0]}", "another SHA-256", step)


def part(cases: Sequence[Case], shard: str) -> Sequence[Case]:
    """Cases of shard "i/n": every n-th, from the i-th."""
    index, count = map(int, shard.split("/"))
    return cases[index - 1 :: count]


def pending(cases: Sequence[Case], output: Path, shard: str = "1/1") -> list[Case]:
    """Cases of a shard that have no label map yet."""
    return [case for case in part(cases, shard) if not os.path.exists(output_path(case, output))]


def run(
    build: Callable[[], Pipeline],
    cases: Sequence[Case],
    output: Path,
    shard: str = "1/1",
    jobs: int = 1,
    max_ram_gib: float | None = None,
) -> int:
    """Segment the shard's pending cases with a progress bar, write the summary, and return how many failed.

    Args:
        build: makes the pipeline, once in each of ``jobs`` processes; for more than one it has to be picklable.
        cases: those of all shards.
        output: folder of the label maps.
        shard: part i of n, which also names the journal.
        jobs: processes.
        max_ram_gib: of this machine, for all jobs together; a case that could need more is refused, not begun.
    """
    journal, left = Journal(output, shard), pending(cases, output, shard)
    if jobs > 1:
        outcomes = map_processes(
            partial(_run_one, build, output, shard, max_ram_gib and max_ram_gib / jobs), left, "predict", jobs
        )
    else:
        outcomes = []
        bar = tqdm(total=len(left), desc="predict", unit="case", dynamic_ncols=True)
        with logging_redirect_tqdm(), bar:
            for outcome in predict_cases(build(), left, output, max_ram_gib) if left else ():
                journal.add(outcome)
                outcomes.append(outcome)
                bar.update()
    journal.write_summary(cases)
    return sum(bool(outcome.error) for outcome in outcomes)


def _run_one(build: Callable[[], Pipeline], output: Path, shard: str, max_ram_gib: float | None, case: Case) -> Outcome:
    """In a process of its own."""
    if not _PIPELINES:
        _PIPELINES.append(build())
    outcome = next(predict_cases(_PIPELINES[0], [case], output, max_ram_gib))
    Journal(output, shard).add(outcome)
    return outcome


_PIPELINES: list[Pipeline] = []
