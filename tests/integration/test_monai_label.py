"""MONAI Label: a real server on loopback, real requests, and label maps compared voxel for voxel."""

from __future__ import annotations

import json
import re

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
import torch

from dcd_ext.data.studies import write_studies
from tests.conftest import ROLES, ROOT, TASKS
from tests.integration.conftest import bundle_inference, call, tool_environment
from tests.integration.label_server import TRAIN, serving

pytestmark = [pytest.mark.slow, pytest.mark.integration]
# inference.json of a task's bundles differs in the width of the network only (tests/bundles/test_generated.py), which
# is a toy's here: each task and each role has its turn once
ONE_PER_TASK = [f"{task}_segmentation_{role}" for task, role in zip(TASKS, ROLES, strict=True)]
ALL = [f"{task}_segmentation_{role}" for task in TASKS for role in ROLES]
LABELS = {
    "brats24": {"netc": 1, "snfh": 2, "et": 3, "rc": 4},
    "hippocampus": {"anterior": 1, "posterior": 2},
    "isles22": {"lesion": 1},
}


@pytest.fixture(scope="module")
def served(prepared, tmp_path_factory):
    """One server for the module: all nine bundles on synthetic data; only the hippocampi have labels to train with."""
    tool_environment("label")
    folder = tmp_path_factory.mktemp("label")
    write_studies(prepared("hippocampus") / "datalist.json", folder / "studies")
    for task in ("brats24", "isles22"):
        write_studies(prepared(task) / "datalist.json", folder / task)
        for image in (folder / task).glob("*.nii.gz"):
            image.rename(folder / "studies" / image.name)
    with serving(folder, ALL) as server:
        yield server


def test_every_bundle_is_listed_with_its_labels_and_can_be_trained(served):
    info = requests.get(f"{served.url}/info/", timeout=60).json()
    assert set(info["models"]) == set(info["trainers"]) == set(ALL)
    for name in ALL:
        assert info["models"][name]["labels"] == LABELS[name.partition("_")[0]]
        assert info["models"][name]["type"] == "segmentation" and info["models"][name]["dimension"] == 3


def test_the_server_is_reachable_from_this_machine_only(served):
    processes = [psutil.Process(served.process.pid)]
    processes += processes[0].children(recursive=True)
    addresses = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_a_page_of_another_site_can_neither_read_nor_start_anything(served, headers):
    for method, path in (("GET", "/info/"), ("GET", "/datastore/image?image=x"), ("POST", f"/train/{ALL[0]}")):
        reply = requests.request(method, served.url + path, headers=headers, timeout=60)
        assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers
    asked = {**headers, "Access-Control-Request-Method": "DELETE"}
    reply = requests.options(f"{served.url}/datastore/label", headers=asked, timeout=60)
    assert reply.status_code == 403 and "access-control-allow-origin" not in reply.headers


def test_the_server_s_own_pages_and_programs_without_an_origin_can_use_it(served):
    tunnel = {"Origin": "http://localhost:9000", "Host": "localhost:9000"}  # an SSH tunnel from another port
    for headers in ({}, tunnel, *({"Origin": f"http://{host}:{served.port}"} for host in ("127.0.0.1", "localhost"))):
        reply = requests.get(f"{served.url}/info/", headers=headers, timeout=60)
        assert reply.status_code == 200, headers
        if headers and headers is not tunnel:
            assert reply.headers["access-control-allow-origin"] == headers["Origin"]


def test_a_name_that_was_pointed_to_this_machine_is_refused(served):
    for host in ("evil.example", f"evil.example:{served.port}"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        for sent in (headers, {"Host": host}):  # browsers leave Origin out when a page gets something from its own site
            reply = requests.get(f"{served.url}/info/", headers=sent, timeout=60)
            assert reply.status_code == 400 and "models" not in reply.text


ALLOWED = """
import sys; sys.path.insert(0, sys.argv[1])
import guard
from starlette.testclient import TestClient
client = TestClient(guard.app, base_url="http://127.0.0.1:8811")
for origin in ("https://viewer.example", "http://localhost:8811"):
    reply = client.get("/openapi.json", headers={"Origin": origin})
    print("answer", reply.status_code, reply.headers.get("access-control-allow-origin"))
"""


def test_origins_the_user_has_set_are_respected():
    python = str(tool_environment("label") / "bin" / "python")
    command = [python, "-c", ALLOWED, str(ROOT / "deploy" / "label")]
    result = call(command, MONAI_LABEL_CORS_ORIGINS='["https://viewer.example"]')
    answers = [line for line in result.stdout.splitlines() if line.startswith("answer")]
    assert answers == ["answer 200 https://viewer.example", "answer 403 None"]


@pytest.mark.parametrize("name", ONE_PER_TASK)
def test_a_label_map_equals_the_bundle_s_own_voxel_for_voxel(served, prepared, tmp_path, name):
    data = prepared(name.partition("_")[0])
    case = json.loads((data / "datalist.json").read_text("utf-8"))["test"][0]["case"]
    [own] = bundle_inference(served.bundles[name], data, tmp_path)
    expected, found = nib.load(own), served.infer(name, case)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    assert len(np.unique(np.asarray(expected.dataobj))) > 1  # a constant map would agree by accident


def test_training_changes_the_server_s_copy_and_nothing_else(served, prepared):
    name = "hippocampus_segmentation_student"
    case = json.loads((prepared("hippocampus") / "datalist.json").read_text("utf-8"))["test"][0]["case"]
    before, original = served.weights(name), (served.bundles[name] / "models" / "model.pt").read_bytes()
    old = np.asarray(served.infer(name, case).dataobj)
    url = f"{served.url}/train/{name}"
    reply = requests.post(url, params={"run_sync": "true"}, json={**TRAIN, "max_epochs": 1}, timeout=600)
    assert reply.status_code == 200, reply.text + served.log.read_text()
    after = served.weights(name)
    assert before.keys() == after.keys()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(changed) > len(before) / 2
    # it went on from the weights that were there: two steps do not lead far
    assert max((before[key] - after[key]).abs().max() for key in before) < 0.2
    assert (served.bundles[name] / "models" / "model.pt").read_bytes() == original
    assert not np.array_equal(np.asarray(served.infer(name, case).dataobj), old)  # the new weights are in use


def test_a_viewer_trains_with_the_options_it_was_offered(served):
    name = "hippocampus_segmentation_student"
    offered = requests.get(f"{served.url}/info/", timeout=60).json()["trainers"][name]["config"]
    options = {key: value[0] if isinstance(value, list) else value for key, value in offered.items()}
    before = served.weights(name)
    task = served.train(name, **{**options, "max_epochs": 1, "pretrained": False})
    assert task["status"] == "DONE", served.log.read_text()
    after = served.weights(name)
    far = max((before[key] - after[key]).abs().max() for key in before)
    assert far > 0.2  # it started anew


def test_the_distilled_student_finds_its_teacher_beside_it(served):
    name = "hippocampus_segmentation_student_dcd"
    assert served.train(name, max_epochs=2)["status"] == "DONE", served.log.read_text()
    assert re.search(r"kd_loss: \d", served.log.read_text())
    teacher = served.app / "model" / "hippocampus_segmentation_teacher" / "models" / "model.pt"
    teacher.rename(teacher.with_suffix(".away"))
    try:
        task = served.train(name)
    finally:
        teacher.with_suffix(".away").rename(teacher)
    assert task["status"] == "ERROR"
    last = "\n".join(task["details"])
    assert "weights not found" in last and "train the teacher bundle first, or pass --teacher_ckpt" in last


@pytest.mark.parametrize("task", TASKS)
def test_every_bundle_trains_on_the_studies_of_its_task(prepared, tmp_path, task):
    """Images of several channels are single 4-D files there; the teacher is trained before the student it teaches."""
    tool_environment("label")
    write_studies(prepared(task) / "datalist.json", tmp_path / "studies")
    names = [f"{task}_segmentation_{role}" for role in ROLES]
    with serving(tmp_path, names) as server:
        for name in names:
            before = server.weights(name)
            assert server.train(name)["status"] == "DONE", server.log.read_text()
            after = server.weights(name)
            assert sum(not torch.equal(before[key], after[key]) for key in before) > len(before) / 2, name


def test_the_next_image_to_label(served):
    reply = requests.post(f"{served.url}/activelearning/random", timeout=60)
    assert reply.status_code == 200 and reply.json()["id"]


@pytest.mark.parametrize("name", ONE_PER_TASK)
def test_batch_inference_writes_the_label_maps_of_single_inference(served, prepared, name):
    lists = json.loads((prepared(name.partition("_")[0]) / "datalist.json").read_text("utf-8"))
    cases = [lists["test"][0]["case"], lists["training"][0]["case"]]
    files = [served.app.parent / "studies" / "labels" / "original" / f"{case}.nii.gz" for case in cases]
    for file in files:
        file.unlink(missing_ok=True)  # another bundle's
    # the studies are of three tasks: a list in the body comes before "images" of the address
    settings = {"images": cases, "device": "cpu", "multi_gpu": False, "max_workers": 1}
    url = f"{served.url}/batch/infer/{name}"
    reply = requests.post(url, params={"run_sync": "true"}, json=settings, timeout=600)
    assert reply.status_code == 200 and set(reply.json()) == set(cases), reply.text + served.log.read_text()
    for case, file in zip(cases, files, strict=True):
        written, single = nib.load(file), served.infer(name, case)
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(single.dataobj))
        np.testing.assert_allclose(written.affine, single.affine, atol=1e-5)
        assert len(np.unique(np.asarray(written.dataobj))) > 1
