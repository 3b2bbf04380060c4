"""Many cases: failures stay with their case, what is done is skipped, shards add up, a kill loses nothing."""

import json
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from dcd_ext.errors import UserError
from dcd_ext.predict.cohort import Journal, Outcome, claim, output_path, pending, predict_cases, run
from dcd_ext.predict.pipelines import MonaiPipeline
from dcd_ext.predict.runtime import Case, Pipeline, PredictError, Volume


class Toy:
    """Labels say which case it was; some files cannot be read, and one breaks later."""

    channels = ("T1",)
    write = staticmethod(Pipeline.write)

    def __init__(self) -> None:
        self.read_files: list[str] = []

    def read(self, files: Any) -> Volume:
        self.read_files.append(files[0].name)
        if "bad" in files[0].name:
            raise PredictError(f"cannot read – {files[0]}")
        number = int(files[0].stem.rpartition("_")[2])
        return Volume(np.full((1, 2, 3, 4), number, np.float32), np.eye(4))

    def preprocess(self, image: Volume) -> tuple[Any, Any]:
        return image.data, None

    def network(self, data: np.ndarray, at_a_time: int | None = None) -> np.ndarray:
        if data.max() == 7:
            raise ArithmeticError("too large")
        return data

    def postprocess(self, scores: np.ndarray, steps: Any) -> np.ndarray:
        return scores[0].astype(np.uint8)


def cases(count: int = 10) -> list[Case]:
    return [Case(f"d{n % 2}/c{n}", (Path(f"{'bad' if n in (2, 5) else 'good'}_{n}.nii"),)) for n in range(count)]


def masks(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob("*.nii.gz"))}


def test_one_bad_case_does_not_stop_the_others(tmp_path: Path) -> None:
    assert run(Toy, cases(), tmp_path) == 3
    summary = json.loads((tmp_path / "summary.json").read_text())
    errors = {c["case"]: c["error"] for c in summary["cases"] if c["error"]}
    assert errors == {
        "d0/c2": "cannot read – bad_2.nii",
        "d1/c5": "cannot read – bad_5.nii",
        "d1/c7": "ArithmeticError: too large – d1/c7",
    }
    assert (summary["segmented"], summary["failed"], len(masks(tmp_path))) == (7, 3, 7)
    good = next(c for c in summary["cases"] if not c["error"])
    assert list(good["seconds"]) == ["read", "preprocess", "network", "postprocess", "write"]


def test_whatever_an_engine_raises_and_no_name_stop_the_others(tmp_path: Path) -> None:
    class Odd(Toy):
        def network(self, data: np.ndarray, at_a_time: int | None = None) -> np.ndarray:
            if data.max() == 7:
                raise RuntimeError("no kernel for this shape\nat node 3")
            return data

    odd = [Case("n" * 300, (Path("good_1.nii"),)), Case("half \ud800", (Path("good_2.nii"),))]
    assert run(Odd, [*odd, *cases()], tmp_path) == 5
    errors = {c["case"]: c["error"] for c in json.loads((tmp_path / "summary.json").read_text())["cases"]}
    assert errors["d1/c7"] == "RuntimeError: no kernel for this shape – d1/c7"
    assert "File name too long" in errors["n" * 300] and "surrogates" in errors["half \ud800"]
    assert len(masks(tmp_path)) == 7


def test_a_failed_case_leaves_its_memory_to_the_next(tmp_path: Path) -> None:
    class Remembering(Toy):
        def network(self, data: np.ndarray, at_a_time: int | None = None) -> np.ndarray:
            if hasattr(self, "failed"):
                assert self.failed() is None
                return data
            self.failed = weakref.ref(data)
            raise MemoryError

    first, second = list(predict_cases(Remembering(), cases(2), tmp_path))
    assert first.error.startswith("MemoryError") and not second.error


def test_each_label_map_is_its_own_case_s(tmp_path: Path) -> None:
    import nibabel as nib

    run(Toy, cases(), tmp_path)
    for case in cases():
        if (path := output_path(case, tmp_path)).exists():
            assert nib.load(path).dataobj[0, 0, 0] == int(case.files[0].stem.rpartition("_")[2])


def test_shards_and_processes_write_the_same_bytes(tmp_path: Path) -> None:
    one, two, jobs = tmp_path / "one", tmp_path / "two", tmp_path / "jobs"
    run(Toy, cases(), one)
    for shard in ("1/3", "2/3", "3/3"):
        run(Toy, cases(), two, shard)
    run(Toy, cases(), jobs, jobs=2)
    assert masks(one) == masks(two) == masks(jobs)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (one, two, jobs)]
    assert len({(s["segmented"], s["failed"], tuple(c["case"] for c in s["cases"])) for s in summaries}) == 1


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    outcomes = predict_cases(Toy(), cases(), tmp_path)
    journal = Journal(tmp_path)
    for _ in range(2):
        journal.add(next(outcomes))
    outcomes.close()
    with open(tmp_path / ".dcd_predict" / "1_of_1.jsonl", "a") as file:
        file.write('{"case": "d1/c5", "err')  # the kill
    done = set(masks(tmp_path))
    toy = Toy()
    left = pending(cases(), tmp_path)
    assert not {str(output_path(case, Path())) for case in left} & done
    run(lambda: toy, cases(), tmp_path)
    assert len(toy.read_files) == 10 - len(done)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["segmented"], summary["failed"]) == (7, 3)


def test_a_case_that_is_mended_counts_as_segmented(tmp_path: Path) -> None:
    run(Toy, [Case("a", (Path("bad_1.nii"),))], tmp_path)
    run(Toy, [Case("a", (Path("good_1.nii"),))], tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["segmented"], summary["failed"]) == (1, 0)


def test_a_case_that_is_mended_counts_as_segmented_though_a_kill_came_before_its_line(tmp_path: Path) -> None:
    run(Toy, cases(), tmp_path)
    path = output_path(cases()[2], tmp_path)
    Pipeline.write(np.zeros((2, 3, 4), np.uint8), np.eye(4), path)
    summary = Journal(tmp_path).write_summary(cases())
    assert (summary["segmented"], summary["failed"]) == (8, 2)
    assert {"case": "d0/c2", "output": str(path), "error": ""}.items() <= summary["cases"][1].items()


@pytest.mark.parametrize(("shard", "expected"), [("1/2", "02468"), ("2/2", "13579"), ("3/4", "26")])
def test_shards_are_disjoint(shard: str, expected: str, tmp_path: Path) -> None:
    assert [case.name[-1] for case in pending(cases(), tmp_path, shard)] == list(expected)


def test_a_case_beyond_the_memory_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    class Sized(Toy):
        window = SimpleNamespace(size=(2, 2, 2))

        def bytes_needed(self, files: Any) -> int:
            return 2**40 if "4" in files[0].name else 1

    toy = Sized()
    assert run(lambda: toy, cases(5), tmp_path, max_ram_gib=64) == 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    error = next(c["error"] for c in summary["cases"] if c["case"] == "d0/c4")
    assert error.startswith("image too large – good_4.nii – may need 153") and "good_4.nii" not in toy.read_files
    with pytest.raises(UserError, match="memory bound too low"):
        run(lambda: toy, cases(5), tmp_path, max_ram_gib=1e-3)
    with pytest.raises(UserError, match="no memory bound"):
        run(lambda: MonaiPipeline.__new__(MonaiPipeline), cases(5), tmp_path, max_ram_gib=8)


def test_a_folder_has_the_label_maps_of_one_network(tmp_path: Path) -> None:
    claim(tmp_path, "student 1")
    claim(tmp_path, "student 1")
    with pytest.raises(UserError, match="label maps of another network – .* – expected student 2, found student 1 – "):
        claim(tmp_path, "student 2")
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".dcd_predict", "network"]


@pytest.mark.parametrize("names", [("p1/t_1.nii", "p2/t_1.nii"), ("p1/series_1", "p2/series_1")])
def test_another_patient_s_image_of_the_same_name_is_no_skipped_case(names: tuple[str, str], tmp_path: Path) -> None:
    """`dcd predict B p1/t1.nii --output masks` and then p2/t1.nii left p1's label map for both."""
    for name in names:
        file = tmp_path / name if name.endswith("nii") else tmp_path / name / "IM1"
        file.parent.mkdir(parents=True)
        file.write_text(name)
    first, second = ([Case("t_1", (tmp_path / name,))] for name in names)
    output = tmp_path / "masks"
    claim(output, "student", first)
    run(Toy, first, output)
    claim(output, "student", first)
    with pytest.raises(UserError, match="label map of another image – .*t_1_seg.nii.gz – expected that of .*p2"):
        claim(output, "student", second)
    # copied to another place, as to a node of a cluster, it is still its own
    shutil.copytree(tmp_path / "p1", tmp_path / "node")
    claim(output, "student", [Case("t_1", (tmp_path / "node" / Path(names[0]).name,))])
    # a replaced image is told; without its label map it is segmented again
    file.write_text("new")
    output_path(first[0], output).unlink()
    claim(output, "student", second)
    run(Toy, second, output)
    claim(output, "student", second)


def test_a_summary_waits_for_that_of_another_shard(tmp_path: Path) -> None:
    """It would be replaced by the older one of a shard that read before and wrote after it."""
    first, second = Journal(tmp_path, "1/2"), Journal(tmp_path, "2/2")
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / ".dcd_predict" / "lock"):
            waiting = pool.submit(first.write_summary)
            second.add(Outcome("c1", "c1_seg.nii.gz"))
            assert not waiting.done()
        assert waiting.result()["segmented"] == 1
