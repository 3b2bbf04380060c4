"""``dcd distil``: bundles in the Model Zoo's style give students that train and infer."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from dcd_ext.commands.main import main as dcd
from dcd_ext.errors import first_cause
from tests.students.zoo import NETWORKS, make_bundle


def distil(teacher: Path, *options: str) -> Path:
    output = teacher.with_name(f"{teacher.name}_student")
    assert dcd(["distil", str(teacher), "--output", str(output), *options]) == 0
    return output


def refusal(teacher: Path, capsys: Any, *options: str) -> str:
    """The one line of a refused teacher, of which nothing is written."""
    output = teacher.with_name("refused")
    assert dcd(["distil", str(teacher), "--output", str(output), *options]) == 1
    assert not output.exists() and not list(teacher.parent.glob(".tmp-*"))
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "TracerWarning" not in line)
    return line


def parameters(bundle: Path, config: str, key: str) -> int:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / config)
    return sum(p.numel() for p in parser.get_parsed_content(key).parameters())


def train(bundle: Path, file: str, data: Path) -> ConfigParser:
    """Two epochs in this process; the last weight of the distillation is not zero."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / file), workflow_type="train", bundle_root=str(bundle), dataset_dir=str(data)
    )
    workflow.parser["kd_schedule"] = "@kd_weight"
    workflow.initialize()
    before = [p.clone() for p in workflow.parser.get_parsed_content("kd_loss").parameters()]
    workflow.run()
    output = workflow.parser.get_parsed_content("train::trainer").state.output[0]
    assert 0 < output["kd_loss"] < float("inf")
    assert workflow.parser["teacher_check::evaluator::network"] == "@teacher"
    after = workflow.parser.get_parsed_content("kd_loss").parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)), "projections are not trained"
    return workflow.parser


@pytest.mark.parametrize(
    ("name", "suffix", "sign", "taps"),
    [
        ("SegResNet", "json", "#", ["down_layers.0", "down_layers.1", "down_layers.2"]),
        ("DynUNet", "json", "::", ["input_block", "downsamples.0", "bottleneck"]),
        ("SwinUNETR", "yaml", "#", ["swinViT.patch_embed", *(f"swinViT.layers{i}.0" for i in range(1, 5))]),
        ("UNETR", "json", "::", ["encoder1", "encoder2", "encoder3", "decoder5"]),
        ("AttentionUnet", "json", "::", ["model.0", "model.1.submodule.0", "model.1.submodule.1.submodule"]),
        ("SegResNetDS", "yaml", "::", [f"encoder.layers.{i}.blocks" for i in range(3)]),
    ],
)
def test_a_student_has_a_tenth_and_trains(
    name: str, suffix: str, sign: str, taps: list[str], tmp_path: Path, capsys: Any
) -> None:
    factor = ["--reduction_factor", "4"] if name == "SwinUNETR" else []  # its width is a multiple of 12
    student = distil(make_bundle(tmp_path / "zoo", NETWORKS[name], suffix, sign), *factor)
    printed, file = capsys.readouterr().out, f"train.{suffix}"
    weights = torch.load(student / "models" / "teacher.pt", weights_only=True)
    # DynUNet has its layers under several names; statistics of batch norms are no parameters
    trained = [value for key, value in weights.items() if value.is_floating_point() and ".running_" not in key]
    total = sum({t.data_ptr(): t.numel() for t in trained}.values())
    assert 10 * parameters(student, file, "network_def") <= total and f"{total:,} -> " in printed
    assert parameters(student, f"inference.{suffix}", "network_def") == parameters(student, file, "network_def")
    parser = ConfigParser()
    parser.read_config(student / "configs" / file)
    assert parser["taps"] == taps and all(path in printed for path in taps)
    train(student, file, tmp_path / "data")
    assert (student / "models" / "model.pt").is_file()


def test_a_student_starts_from_its_teacher_where_its_channels_can_be_followed(tmp_path: Path, capsys: Any) -> None:
    student = distil(make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"]), "--start_from_teacher")
    parser = ConfigParser()
    parser.read_config(student / "configs" / "train.json")
    parser.update({"bundle_root": str(student), "dataset_dir": str(tmp_path / "data")})
    parser.get_parsed_content("kd_handler")
    ours = parser.get_parsed_content("network").state_dict()["convInit.conv.weight"]
    theirs = torch.load(student / "models" / "teacher.pt", weights_only=True)["convInit.conv.weight"]
    assert len(ours) == 4 and all(any(torch.equal(row, other) for other in theirs) for row in ours)
    train(student, "train.json", tmp_path / "data")
    teacher = make_bundle(tmp_path / "other", NETWORKS["SwinUNETR"])
    capsys.readouterr()
    assert "channels cannot be followed" in refusal(teacher, capsys, "--start_from_teacher", "--reduction_factor", "4")


def test_a_yaml_bundle_infers_without_this_package(tmp_path: Path) -> None:
    """Training in this process, then the command line in an interpreter that cannot import dcd_ext."""
    student = distil(make_bundle(tmp_path / "zoo", NETWORKS["UNet"], "yaml", "::"), "--kd_weight", "0.3")
    train(student, "train.yaml", tmp_path / "data")
    options = ["--bundle_root", str(student), "--dataset_dir", str(tmp_path / "data")]
    code = (
        "import sys; sys.modules['dcd_ext'] = None; import runpy; runpy.run_module('monai.bundle', run_name='__main__')"
    )
    files = ["--config_file", str(student / "configs" / "inference.yaml")]
    command = [sys.executable, "-c", code, "run", "inference", *files, *options]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(list((student / "eval").rglob("*.nii.gz"))) == 1


def test_only_the_network_differs_from_the_teachers_configs(tmp_path: Path) -> None:
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"])
    student = distil(teacher, "--reduction_factor", "2", "--hooks", "down_layers.1", "convInit")
    old, new = (json.loads((b / "configs" / "inference.json").read_text("utf-8")) for b in (teacher, student))
    assert {k for k in new if new[k] != old.get(k)} == {"network_def", "inference"}
    assert new["network_def"]["init_filters"] == 8
    train_config = json.loads((student / "configs" / "train.json").read_text("utf-8"))
    assert train_config["taps"] == ["down_layers.1", "convInit"]
    assert train_config["kd_loss_def"]["teacher_channels"] == [32, 16]
    # an overlay that names a handler by its number still means the same one
    overlay = json.loads((student / "configs" / "multi_gpu_train.json").read_text("utf-8"))
    (number,) = (key for key in overlay if key.startswith("train#handlers#"))
    handler = train_config["train"]["handlers"][int(number.split("#")[2])]
    assert handler["_target_"] == "ValidationHandler"
    metadata = json.loads((student / "configs" / "metadata.json").read_text("utf-8"))
    assert "eval_metrics" not in metadata and metadata["version"] in metadata["changelog"]


def test_arguments_that_refer_to_the_width_follow_it(tmp_path: Path) -> None:
    network = {**NETWORKS["SegResNet"], "norm": ["GROUP", {"num_groups": "$@network_def#init_filters // 2"}]}
    student = distil(make_bundle(tmp_path / "zoo", network))
    parser = ConfigParser()
    parser.read_config(student / "configs" / "train.json")
    parser["teacher_def::_mode_"] = "default"
    teacher, narrow = (parser.get_parsed_content(key) for key in ("teacher_def", "network_def"))
    groups = [net.down_layers[0][1].norm1.num_groups for net in (teacher, narrow)]
    assert groups[0] == 8 and 4 % groups[1] == 0
    teacher.load_state_dict(torch.load(student / "models" / "teacher.pt", weights_only=True))


def rewrite(bundle: Path, change: Any) -> Path:
    """The bundle with both configs' text changed."""
    for name in ("train.json", "inference.json"):
        path = bundle / "configs" / name
        path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")
    return bundle


def renamed(config: Any) -> Any:
    """The network and the engines under names of their own."""
    names = {"network_def": "seg_net", '"network": "$': '"net": "$', '"@network"': '"@net"', "$@network.": "$@net."}
    if "train" in config:
        config |= {"fit": config["train"].pop("trainer"), "judge": config["validate"].pop("evaluator")}
        names |= {"train#trainer": "fit", "validate#evaluator": "judge"}
    text = json.dumps(config)
    for old, new in names.items():
        text = text.replace(old, new)
    return json.loads(text)


def with_old_argument(config: Any) -> Any:
    """As in the zoo's bundle: what MONAI had to know before its version 1.5."""
    config["network_def"]["img_size"] = 96
    return config


def wrapped(config: Any) -> Any:
    config["network"] = {"_target_": "torch.nn.parallel.DistributedDataParallel", "module": "$@seg.to(@device)"}
    config["seg"] = config.pop("network_def")
    return config


@pytest.mark.parametrize(
    ("network", "change", "key"),
    [
        ("UNet", renamed, "seg_net"),
        ("UNet", wrapped, "seg"),
        ("SwinUNETR", with_old_argument, "network_def"),
    ],
)
def test_networks_and_engines_of_other_names_are_found(network: str, change: Any, key: str, tmp_path: Path) -> None:
    teacher = make_bundle(tmp_path / "zoo", NETWORKS[network])
    student = distil(rewrite(teacher, change))
    config, inference = (
        json.loads((student / "configs" / f"{n}.json").read_text("utf-8")) for n in ("train", "inference")
    )
    assert config[key] != config["teacher_def"] and "img_size" not in json.dumps(config) + json.dumps(inference)
    assert (
        "@teacher_check" in config["train"]["handlers"]
        and config["teacher_check"]["evaluator"]["network"] == "@teacher"
    )
    assert parameters(student, "train.json", key) * 3 < sum(
        p.numel() for p in torch.load(student / "models" / "teacher.pt", weights_only=True).values()
    )


def nested(config: Any) -> Any:
    config["training_network"] = {key: config.pop(key) for key in ("network_def", "network")}
    text = json.dumps(config).replace('"@network"', '"@training_network#network"')
    return json.loads(text.replace("$@network", "$@training_network#network"))


def listed(config: Any) -> Any:
    del config["network"]
    config["networks"] = [config.pop("network_def")]
    return json.loads(json.dumps(config).replace('"@network"', '"@networks#0"').replace("$@network.", "$@networks#0."))


def clicking(config: Any) -> Any:
    """As DeepEdit: before each step the network predicts without gradients, to simulate clicks."""
    for part, engine in (("train", "trainer"), ("validate", "evaluator")) if "train" in config else ():
        interaction = {"_target_": "monai.apps.deepedit.interaction.Interaction", "deepgrow_probability": 1.0}
        config[part]["update"] = {**interaction, "transforms": [], "train": part == "train"}
        config[part][engine]["iteration_update"] = f"@{part}#update"
    return config


def grouped(config: Any) -> Any:
    if "train" in config:
        config["optimizer"]["params"] = [{"params": "$@network.parameters()", "lr": 0.01}]
    return config


@pytest.mark.parametrize("style", [nested, listed, clicking, grouped])
def test_students_of_other_styles_train_and_infer(style: Any, tmp_path: Path) -> None:
    student = distil(rewrite(make_bundle(tmp_path / "zoo", NETWORKS["UNet"]), style))
    train(student, "train.json", tmp_path / "data")
    options = {"bundle_root": str(student), "dataset_dir": str(tmp_path / "data")}
    workflow = ConfigWorkflow(str(student / "configs" / "inference.json"), workflow_type="infer", **options)
    workflow.initialize()
    workflow.run()
    assert len(list((student / "eval").rglob("*.nii.gz"))) == 1


def test_weights_that_the_training_starts_from_are_named(tmp_path: Path, caplog: Any) -> None:
    """They are the wide network's; a loader that is switched off is not meant."""
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["UNet"])
    loader = {"_target_": "CheckpointLoader", "load_path": "a.pt", "load_dict": {"model": "@network"}}
    spoil(teacher, "finetune", {**loader, "_disabled_": "$not @finetuned"})
    distil(teacher)
    assert "weights before it starts" not in caplog.text
    spoil(teacher, "loader", loader)
    spoil(teacher, "pretrained", "$torch.load(@bundle_root + '/models/model.pt')")
    assert dcd(["distil", str(teacher), "--output", str(tmp_path / "again")]) == 0
    assert "loads weights before it starts" in caplog.text and "(loader::_target_, pretrained)" in caplog.text


def brats(config: Any) -> Any:
    """Overlapping regions as channels, and one list of steps instead of ``initialize`` and ``run``."""
    steps = [*config.pop("initialize"), *config.pop("run")]
    config["evaluating" if "evaluator" in config else "training"] = steps
    config["network_def"]["out_channels"] = 3
    if "train" in config:
        regions = {"_target_": "ConvertToMultiChannelBasedOnBratsClassesd", "keys": "label"}
        config["train"]["deterministic_transforms"].append(regions)
        config["loss"] = {"_target_": "DiceLoss", "sigmoid": True}
        threshold = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
        sigmoid = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
        config["train"]["postprocessing"]["transforms"] = [sigmoid, threshold]
    return config


@pytest.mark.parametrize("recorded", [None, 0.99])
def test_the_teacher_is_compared_with_its_metadata(recorded: float | None, tmp_path: Path, caplog: Any) -> None:
    teacher = rewrite(make_bundle(tmp_path / "zoo", {**NETWORKS["SegResNet"], "out_channels": 3}), brats)
    metadata = teacher / "configs" / "metadata.json"
    content = {**json.loads(metadata.read_text("utf-8")), "eval_metrics": {"val_mean_dice": recorded}}
    metadata.write_text(json.dumps({**content, "required_packages_version": {"no-such-package": "1.0", "torch": "2"}}))
    student = distil(teacher)
    assert "pip install no-such-package" in caplog.text
    caplog.set_level("INFO")
    if recorded is None:
        train(student, "train.json", tmp_path / "data")
        assert "no score to compare with" in caplog.text
        return
    with pytest.raises(RuntimeError) as caught:
        train(student, "train.json", tmp_path / "data")
    assert "expected 0.990 (teacher.pt), found val_mean_dice 0." in str(first_cause(caught.value))


def spoil(bundle: Path, key: str, value: Any) -> Path:
    """The bundle with another entry in train.json; None removes it."""
    path = bundle / "configs" / "train.json"
    config = json.loads(path.read_text("utf-8"))
    config.pop(key, None)
    path.write_text(json.dumps(config if value is None else {**config, key: value}), "utf-8")
    return bundle


CODE = {"_target_": "scripts.net.Net", "channels": [8, 16]}
VOXNET = {"_target_": "monai.networks.nets.VNet", "in_channels": 1, "out_channels": 2}
DANGER = {**NETWORKS["UNet"], "channels": "$__import__('os').mkdir('ran')"}
HUB = {"_target_": "torch.hub.load", "repo_or_dir": "a/b", "model": "c"}


@pytest.mark.parametrize(
    ("key", "value", "texts"),
    [
        ("network_def", None, ["no network definition", "train.json", "pass --network_key KEY"]),
        ("network_def", "$monai.networks.nets.UNet(3, 1, 2, [8, 16], [2])", ["no network def", "or write it so"]),
        ("network_def", {**NETWORKS["UNet"], "spatial_dims": 2}, ["a 2D network", "train.json, network_def"]),
        ("network_def", {**NETWORKS["SwinUNETR"], "feature_size": 12}, ["hardly smaller", "pass --width_arg"]),
        ("network_def", VOXNET, ["no argument is known as the width", "VNet", "pass --width_arg NAME"]),
        ("network_def", CODE, ["'network_def' is not plain", "scripts.net.Net", "pass --trust"]),
        ("network_def", DANGER, ["'network_def' is not plain", "__import__", "pass --trust"]),
        ("network_def", HUB, ["'network_def' is not plain", "torch.hub.load", "pass --trust"]),
        ("train#trainer", {"_target_": "scripts.Trainer"}, ["no trainer that can distil", "--trainer_key KEY"]),
        ("optimizer", "$torch.optim.Adam(@network.parameters())", ["unknown parameters of the optimizer", "params"]),
    ],
)
def test_what_cannot_be_read_is_one_line(
    key: str, value: Any, texts: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["UNet"])
    (teacher / "scripts").mkdir()
    (teacher / "scripts" / "net.py").write_text("open('ran', 'w')", "utf-8")
    line = refusal(spoil(teacher, key, value), capsys)
    assert all(text in line for text in texts), line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--hooks", "model.9"], "no such module"),
        (["--width_arg", "num_res_units", "norm"], "not a width"),
        (["--config_file", "other.json"], "no training config"),
        (["--weights", "nowhere.pt"], "the teacher has no weights"),
        (["--network_key", "loss"], "is not plain"),
        (["--patch", "6", "6", "6"], "no input fits the network"),
    ],
)
def test_a_wrong_option_is_one_line(options: list[str], text: str, tmp_path: Path, capsys: Any) -> None:
    assert text in refusal(make_bundle(tmp_path / "zoo", NETWORKS["UNet"]), capsys, *options)


def test_trust_runs_the_bundles_code(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["UNet"])
    (teacher / "scripts").mkdir()
    (teacher / "scripts" / "__init__.py").write_text("", "utf-8")
    (teacher / "scripts" / "net.py").write_text("from monai.networks.nets import UNet as Net", "utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [n for n in sys.modules if n.split(".")[0] == "scripts"]:  # this repository's own
        monkeypatch.delitem(sys.modules, name)
    spoil(teacher, "network_def", {**NETWORKS["UNet"], "_target_": "scripts.net.Net"})
    student = distil(teacher, "--trust")
    assert (student / "scripts" / "net.py").is_file()


def test_weights_may_be_torchscript(tmp_path: Path) -> None:
    teacher = make_bundle(tmp_path / "zoo", NETWORKS["SegResNet"])
    state = torch.load(teacher / "models" / "model.pt", weights_only=True)["state_dict"]
    network = ConfigParser({"n": NETWORKS["SegResNet"]}).get_parsed_content("n")
    network.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8), check_trace=False).save(teacher / "models" / "model.ts")
    (teacher / "models" / "model.pt").unlink()
    copied = torch.load(distil(teacher) / "models" / "teacher.pt", weights_only=True)
    assert all(torch.equal(copied[key], value) for key, value in state.items())
