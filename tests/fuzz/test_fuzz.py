"""Files and options that anybody may write: whatever is in them, the answer is a result or one line.

``./runtests.sh`` tries a few inputs of each kind, always the same; ``./runtests.sh --fuzz`` thousands of new ones.
"""

import json
import os
import shutil
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from fire.parser import DefaultParseValue
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser, ConfigWorkflow

from dcd_ext.bundles import pack as pack_module
from dcd_ext.bundles.config import check_keys, config_files
from dcd_ext.bundles.folder import BundleFolder
from dcd_ext.bundles.options import settle_options
from dcd_ext.bundles.sums import write_sums, write_zip
from dcd_ext.data.cases import load_cases
from dcd_ext.errors import user_error
from dcd_ext.handlers import Checkpoints
from dcd_ext.inference.inputs import check_image
from dcd_ext.predict import runtime
from dcd_ext.predict.standalone import pipeline_spec
from dcd_ext.report import all_tables, compare, load_runs
from dcd_ext.tables import to_markdown
from dcd_ext.weights import load_weights
from tests.bundles.conftest import make_small
from tests.conftest import BUNDLES, ROOT, ToyNet, read_json
from tests.dicom_series import write_series
from tests.fuzz.conftest import Sandbox, command
from tests.fuzz.inputs import VALUES, spoiled_bytes, spoiled_content, spoiled_json
from tests.report.conftest import training, write_run

# said of a failing input as large as a zip, in place of its failure
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
NAME = "hippocampus_segmentation_student"
LOADS_ITK = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # SWIG's types


def fuzz(examples: int, strategy: st.SearchStrategy[Any], check: Any) -> None:
    """Call ``check`` with so many inputs."""
    new = "DCD_FUZZ" in os.environ
    options = settings(
        max_examples=examples,
        deadline=None,
        derandomize=not new,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a smaller example takes minutes to find
    )
    options(given(strategy)(lambda value: check(value)))()


def _volume(path: Path, voxels: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])), path)
    return path.name


@pytest.fixture
def datalist(sandbox: Sandbox) -> dict[str, Any]:
    """Two labelled cases and one without a label, one of two channels each."""
    rng = np.random.default_rng(0)
    for name in "abcdef":
        _volume(sandbox.input / f"{name}.nii.gz", rng.normal(size=(6, 5, 4)).astype(np.float32))
    for name in "xy":
        _volume(sandbox.input / f"{name}.nii.gz", rng.integers(0, 3, (6, 5, 4)).astype(np.uint8))
    cases = [(["a", "b"], "x"), (["c", "d"], "y"), (["e", "f"], None)]
    entries = [
        {
            "image": [f"{name}.nii.gz" for name in images],
            **({"label": f"{label}.nii.gz"} if label else {}),
            "case": f"case{number}",
            "subject": f"case{number}",
            "fold": number,
        }
        for number, (images, label) in enumerate(cases)
    ]
    content = {"task": "toy", "modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "u", "2": "v"}}
    return {**content, "folds": 2, "training": entries[:2], "test": entries[2:]}


def test_data_lists(datalist, sandbox, examples):
    def check(content: bytes) -> None:
        (sandbox.input / "datalist.json").write_bytes(content)
        (sandbox.input / "check.json").unlink(missing_ok=True)

        def read() -> bool:
            checked = command("check", sandbox.input, reports=True)
            made = command("studies", sandbox.input, "--output", sandbox.output / "studies")
            for section in ("training", "validation", "test"):
                load_cases(str(sandbox.input), section)
            return checked and made

        sandbox.run("data lists", read, writes=("check.json",))

    fuzz(examples(10), spoiled_json(datalist), check)


def test_decathlon_indexes(datalist, sandbox, examples):
    def check(content: bytes) -> None:
        (sandbox.input / "dataset.json").write_bytes(content)
        where = ("--source", sandbox.input, "--output", sandbox.output)
        sandbox.run("Decathlon indexes", lambda: command("prepare", "msd", *where, "--folds", "2"))

    index = {
        "name": "x",
        **datalist,
        "training": [{"image": "a.nii.gz", "label": "x.nii.gz"}] * 2,
        "test": ["c.nii.gz"],
    }
    index["training"][1] = {"image": "b.nii.gz", "label": "y.nii.gz"}
    fuzz(examples(8), spoiled_json(index), check)


def test_nifti_files(datalist, sandbox, examples):
    (sandbox.input / "datalist.json").write_text(json.dumps(datalist))
    image, label = (nib.load(sandbox.input / f"{name}.nii.gz").to_bytes() for name in "ax")

    def check(content: tuple[str, bytes]) -> None:
        name, spoiled = content
        entry = deepcopy(datalist)
        entry["training"][0].update(image=[name if name == "image.nii" else "a.nii.gz", "b.nii.gz"])
        entry["training"][0].update(label=name if name == "label.nii" else "x.nii.gz")
        (sandbox.input / "datalist.json").write_text(json.dumps(entry))
        (sandbox.input / name).write_bytes(spoiled)

        def read() -> bool:
            made = command("studies", sandbox.input, "--output", sandbox.output / "studies")
            return command("check", sandbox.input, reports=True) and made

        sandbox.run("NIfTI headers and voxels", read, writes=("check.json",))

    # half of the faults in the 348 bytes of the header
    def file(name: str, content: bytes) -> st.SearchStrategy[tuple[str, bytes]]:
        header = spoiled_bytes(content[:352]).map(lambda head: head + content[352:])
        return st.tuples(st.just(name), st.one_of(header, spoiled_bytes(content)))

    fuzz(examples(5), st.one_of(file("image.nii", image), file("label.nii", label)), check)


def dicom_files(content: bytes) -> st.SearchStrategy[bytes]:
    """Half of the faults in the header."""
    end = content.rindex(b"\xe0\x7f\x10\x00")  # the tag of the pixels
    header = spoiled_bytes(content[:end]).map(lambda head: head + content[end:])
    return st.one_of(header, spoiled_bytes(content))


@pytest.fixture
def series(sandbox: Sandbox) -> Path:
    """A folder of four slices, to be spoiled."""
    voxels = np.random.default_rng(0).integers(0, 99, (20, 24, 4)).astype(np.int16)
    return write_series(sandbox.input / "scan", voxels, "T1", 1)


@LOADS_ITK
def test_dicom_headers(series, sandbox, examples):
    def check(content: bytes) -> None:
        (series / "000002.dcm").write_bytes(content)
        sandbox.run("DICOM headers", lambda: check_image(str(series)))

    fuzz(examples(4), dicom_files((series / "000002.dcm").read_bytes()), check)


def infer(bundle: Path, sandbox: Sandbox) -> None:
    """``run inference`` of the small bundle, in this process; raises what the last line would say."""
    options = {"dataset_dir": str(sandbox.input), "output_dir": str(sandbox.output), "bundle_root": str(bundle)}
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"), workflow_type="inference", logging_file=False, **options
    )
    workflow.initialize()
    try:
        workflow.run()
    except Exception as error:
        told = user_error(error)
        if told is None:
            raise
        raise told from error


@pytest.fixture
def inference(bundle: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Infers, with a sound image beside the spoiled one, which has to be segmented whatever the other is."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    rng = np.random.default_rng(0)
    _volume(sandbox.input / "sound.nii.gz", rng.normal(size=(20, 24, 18)).astype(np.float32))

    def run(kind: str) -> None:
        sandbox.run(kind, lambda: infer(bundle, sandbox))
        assert kind.endswith("lists") or list(sandbox.output.rglob("sound_seg.nii.gz"))

    return run


@LOADS_ITK
def test_inference_of_images(inference, sandbox, examples):
    rng = np.random.default_rng(1)
    _volume(sandbox.input / "spoiled.nii", rng.normal(size=(20, 24, 18)).astype(np.float32))
    content = (sandbox.input / "spoiled.nii").read_bytes()
    header = spoiled_bytes(content[:352]).map(lambda head: head + content[352:])

    def check(changed: bytes) -> None:
        (sandbox.input / "spoiled.nii").write_bytes(changed)
        inference("inference: NIfTI")

    fuzz(examples(3), st.one_of(header, header, spoiled_bytes(content)), check)


@LOADS_ITK
def test_inference_of_dicom(inference, series, sandbox, examples):
    (sandbox.input / "datalist.json").write_text('{"test": [{"image": "sound.nii.gz"}, {"image": "scan"}]}')

    def check(content: bytes) -> None:
        (series / "000003.dcm").write_bytes(content)
        inference("inference: DICOM")

    fuzz(examples(2), dicom_files((series / "000003.dcm").read_bytes()), check)


@LOADS_ITK
def test_inference_of_data_lists(inference, sandbox, examples):
    content = {"name": "x", "test": [{"image": "sound.nii.gz"}, {"image": "missing.nii.gz", "case": "b"}, "c.nii.gz"]}

    def check(changed: bytes) -> None:
        (sandbox.input / "datalist.json").write_bytes(changed)
        try:
            inference("inference: data lists")
        finally:
            (sandbox.input / "datalist.json").unlink()

    fuzz(examples(2), spoiled_json(content), check)


class Zeros(runtime.Engine):
    """In place of an exported network."""

    def __init__(self, *_: object) -> None:
        pass

    def map(self, patches: Any, at_a_time: int) -> Any:
        for patch in patches:
            yield np.zeros((1, 3, *patch.shape[2:]), np.float32)


@LOADS_ITK
def test_predict(bundle, sandbox, examples, monkeypatch):
    """Images, data lists and the description of the network; the network itself is not run."""
    monkeypatch.setattr(runtime, "OnnxRuntime", Zeros)
    exported = sandbox.input / "exported"
    exported.mkdir()
    (exported / "network.onnx").touch()
    rng, shape = np.random.default_rng(0), (20, 24, 18)
    for folder in ("folder", "listed"):
        (sandbox.input / folder).mkdir()
        for name in ("sound", "spoiled"):
            _volume(sandbox.input / folder / f"{name}.nii", rng.normal(size=shape).astype(np.float32))
    spec = {**pipeline_spec(BundleFolder(bundle)), "network": "network.onnx"}
    listed = {"test": [{"image": "sound.nii", "case": "a"}, {"image": ["spoiled.nii"], "case": "b"}, "sound.nii"]}
    files = {
        "exported/pipeline.json": json.dumps(spec).encode(),
        "listed/datalist.json": json.dumps(listed).encode(),
        "folder/spoiled.nii": (sandbox.input / "folder" / "spoiled.nii").read_bytes(),
    }

    def check(spoiled: tuple[str, bytes]) -> None:
        for name, content in (*files.items(), spoiled):
            (sandbox.input / name).write_bytes(content)
        source = sandbox.input / ("listed" if "listed" in spoiled[0] else "folder")
        arguments = ("--output", sandbox.output, "--threads", "1")
        sandbox.run("predict", lambda: command("predict", exported, source, *arguments, reports=True))
        assert "folder" not in spoiled[0] or (sandbox.output / "sound_seg.nii.gz").exists()

    image = files["folder/spoiled.nii"]
    header = spoiled_bytes(image[:352]).map(lambda head: head + image[352:])
    spoiled = st.one_of(
        st.tuples(st.just("exported/pipeline.json"), spoiled_json(spec)),
        st.tuples(st.just("listed/datalist.json"), spoiled_json(listed)),
        st.tuples(st.just("folder/spoiled.nii"), st.one_of(header, spoiled_bytes(image))),
    )
    fuzz(examples(4), spoiled, check)


def test_task_files(sandbox, examples):
    task = read_json(ROOT / "bundle_src" / "tasks" / "hippocampus.json")

    def check(content: bytes) -> None:
        (sandbox.input / "mine.json").write_bytes(content)
        sandbox.run("task files", lambda: command("build", sandbox.input / "mine.json", "--output", sandbox.output))

    fuzz(examples(6), spoiled_json(task), check)


def test_run_folders(sandbox, examples, monkeypatch):
    monkeypatch.setattr("dcd_ext.report.statistics.RESAMPLES", 99)
    scores = {"status": "scored", "dice": 0.5, "hd95_mm": 2.0, "nsd": 0.5, "lesion_f1": 0.5, "lesions_true": 2}
    cases = {f"case{i}": {"classes": {"core": scores, "rim": {**scores, "dice": 0.1 * i}}} for i in range(3)}
    for name in ("teacher", "student"):
        write_run(sandbox.input / name, cases, class_names=["core", "rim"])
    files = {"metrics.json": read_json(sandbox.input / "student" / "metrics.json"), "training.json": training(3, True)}

    def check(spoiled: tuple[str, bytes]) -> None:
        for name, content in files.items():
            (sandbox.input / "student" / name).write_text(json.dumps(content))
        (sandbox.input / "student" / spoiled[0]).write_bytes(spoiled[1])
        # drawing takes seconds: a page for some of those that are accepted
        arguments = ("--output", sandbox.output / "report.html", "--pictures", "0")

        def read() -> bool:
            comparison = compare(load_runs(["teacher", "student"]))
            json.dumps(comparison, allow_nan=False)
            assert all(to_markdown(table) for tables in all_tables(comparison).values() for table in tables)
            return len(spoiled[1]) % 16 > 0 or command("compare", "teacher", "student", *arguments)

        sandbox.run("run folders", read)

    spoiled = st.one_of(*(st.tuples(st.just(name), spoiled_json(content)) for name, content in files.items()))
    fuzz(examples(8), spoiled, check)


TENSORS = st.one_of(
    VALUES,
    st.lists(st.integers(0, 4), max_size=5).map(torch.zeros),
    st.sampled_from([torch.int64, torch.complex64, torch.bool, torch.float16]).map(lambda t: torch.zeros(3, dtype=t)),
    st.just(torch.eye(3).to_sparse()),
    st.just(torch.full((2,), float("nan"))),
)


def saved(path: Path, content: Any) -> st.SearchStrategy[bytes]:
    """Checkpoints with other entries, or with other bytes."""

    def store(changed: Any) -> bytes:
        torch.save(changed, path)
        return path.read_bytes()

    other = spoiled_content(content, TENSORS).map(store)
    return st.one_of(other, other, spoiled_bytes(store(content)))


def test_weights(sandbox, examples, tmp_path):
    path, network = sandbox.input / "model.pt", ToyNet()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        sandbox.run("weights", lambda: load_weights(network, path, "train it"))

    fuzz(examples(19), saved(tmp_path / "made.pt", dict(network.state_dict())), check)


def test_resume_files(sandbox, examples, tmp_path, make_trainer):
    network = ToyNet()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=4)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    make_trainer(network, [Checkpoints(str(tmp_path), str(tmp_path), state)], max_epochs=1).run()
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    content["max_epochs"] = 2

    def check(spoiled: bytes) -> None:
        (sandbox.output.parent / "checkpoint_last.pt").write_bytes(spoiled)

        def resume() -> None:
            folder = str(sandbox.output.parent)
            make_trainer(network, [Checkpoints(folder, folder, state, resume=True)], max_epochs=2).run()

        sandbox.run("resume files", resume, writes=("checkpoint_last.pt",))

    fuzz(examples(10), saved(tmp_path / "made.pt", content), check)


def test_options(sandbox, examples):
    configs = BUNDLES / f"{NAME}_dcd" / "configs"
    files = config_files(configs)
    config = ConfigParser.load_config_files([str(configs / "train.json"), str(configs / "evaluate.json")])
    known = [key for key in config if key not in ("initialize", "run", "training", "evaluating", "imports")]
    names = st.sampled_from([*known, "validate::dataloader::shuffle", "train::optimizer::lr", "train::nothing", "x"])
    texts = st.one_of(
        st.sampled_from(["true", "False", "no", "0", "-1", "1e3", "nan", "None", "[]", "{}", "[1,2,3]", "'1'", "all"]),
        st.text(max_size=8),
        VALUES.map(str),
    )

    def check(pair: tuple[str, str]) -> None:
        name, text = pair
        parser = ConfigParser(deepcopy(config))
        parser.set(DefaultParseValue(text), name)

        def settle() -> None:
            check_keys(parser.config, configs)
            settle_options(parser, files)

        sandbox.run("options", settle)

    fuzz(examples(19), st.tuples(names, texts), check)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with weights and checksums."""
    root = make_small(NAME, tmp_path_factory.mktemp("bundle"))
    write_sums(root)
    return root


def test_zips(bundle, sandbox, examples):
    path = sandbox.input / "bundle.zip"
    write_zip(bundle, path)
    whole = path.read_bytes()
    # of the directory at the end, which says what the zip holds
    end = spoiled_bytes(whole[-4000:]).map(lambda tail: whole[:-4000] + tail)

    def check(content: bytes) -> None:
        path.write_bytes(content)

        def look() -> bool:
            inspected, verified = command("inspect", path), command("verify", path, reports=True)
            return inspected and verified

        sandbox.run("zips", look)

    fuzz(examples(3), st.one_of(spoiled_bytes(whole), end), check)


def test_bundles_to_pack(bundle, sandbox, examples, monkeypatch):
    """What is read before the network is traced."""
    monkeypatch.setattr(pack_module, "export_torchscript", lambda made, path: path.touch())
    root = shutil.copytree(bundle, sandbox.input / NAME)
    files = {f"configs/{name}.json": read_json(root / "configs" / f"{name}.json") for name in ("inference", "metadata")}

    def check(spoiled: tuple[str, bytes]) -> None:
        for name, content in files.items():
            (root / name).write_text(json.dumps(content))
        (root / spoiled[0]).write_bytes(spoiled[1])
        sandbox.run("bundles to pack", lambda: command("pack", root, "--output", sandbox.output))

    spoiled = st.one_of(*(st.tuples(st.just(name), spoiled_json(content)) for name, content in files.items()))
    fuzz(examples(3), spoiled, check)
