"""Values of configs: targets, arguments, keys, macros, addresses and paths; and configs under other names."""

import json

import pytest

from dcd_ext.audit.bundle import audit
from tests.audit.planting import INFERENCE, edit, found, write

COMMAND = ["$__import__('os').system('touch executed')"]


@pytest.mark.parametrize(
    "target", ["run_cmd", "first", "os.system", "monai.data.utils.os.system", "$os.system", "torch.load", "eval"]
)
def test_target_is_refused(target, bundle):
    edit(bundle, handlers=[{"_target_": target}])
    assert [f for f in audit(bundle) if f.key == "handlers::0::_target_"]


@pytest.mark.parametrize("target", ["Compose", "monai.transforms.LoadImaged", "LoadImageD", "torch.optim.AdamW"])
def test_class_of_the_field_passes(target, bundle):
    edit(bundle, handlers=[{"_target_": target}])
    assert audit(bundle) == []


DENIED = {
    "CSVDataset": {"src": "x.csv"},
    "HoVerNet": {},
    "PerceptualLoss": {"spatial_dims": 3},
    "TorchVisiond": {"name": "x"},
    "RandTorchIOD": {"name": "x"},
    "CuCIMDict": {"name": "x"},
    "ClearMLHandler": {},
    "monai.data.LMDBDataset": {},
    "ignite.handlers.clearml_logger.ClearMLLogger": {},
    "ignite.handlers.mlflow_logger.MLflowLogger": {},
    "torch.utils.data.datapipes.iter.routeddecoder.RoutedDecoderIterDataPipe": {},
    "torch.utils.data.datapipes.iter.fileopener.FileOpenerIterDataPipe": {},
    "torch.compile": {"model": "@network"},
    "torch.distributed.init_process_group": {"init_method": "tcp://h:1"},
    "openvino.convert_model": {"extension": "x"},
}


@pytest.mark.parametrize(("target", "arguments"), DENIED.items(), ids=DENIED)
def test_class_that_downloads_or_looks_names_up_is_refused(target, arguments, bundle):
    edit(bundle, planted={"_target_": target, **arguments})
    assert found(bundle, INFERENCE, "planted::_target_")


ARGUMENTS = [
    ("LoadImage", "reader", "subprocess.call"),
    ("LoadImage", "reader", "eval"),
    ("LoadImage", "reader", "@x"),
    ("LoadImaged", "reader", ["ITKReader", "os.system"]),
    ("SaveImaged", "writer", "antigravity.x"),
    ("PatchInferer", "merger_cls", "antigravity.x"),
    ("LoadImage", "allow_pickle", True),
    ("LoadImage", "allow_pickle", 2),
    ("LoadImage", "allow_pickle", "yes"),
    ("LoadImage", "allow_pickle", "$True"),
    ("LoadImage", "allow_pickle", "@x"),
    ("PersistentDataset", "weights_only", False),
    ("PersistentDataset", "weights_only", "$False"),
    ("PersistentDataset", "weights_only", 0),
    ("PersistentDataset", "pickle_module", "dill"),
    ("Compose", "_debug_", True),
    ("Compose", "_mode_", "debug"),
    ("LoadImage", "_mode_", "callable"),
    ("TorchVisionFCModel", "pretrained", True),
    ("SENet154", "pretrained", "@x"),
    ("UNet", "pretrained_path", "x.pt"),
    ("MLFlowHandler", "tracking_uri", "http://h"),
    ("MLFlowHandler", "tracking_uri", "$'http:' + '//h'"),
    ("MLFlowHandler", "tracking_uri", "@address"),
    ("MLFlowHandler", "tracking_uri", "databricks"),
    ("MLFlowHandler", "tracking_uri", "file://h/x"),
    ("CacheDataset", "data", ["http://h/x"]),
    ("SaveImaged", "output_dir", "/etc"),
    ("SaveImaged", "output_dir", "~/x"),
    ("LogfileHandler", "filename", "glob.py"),
    ("LogfileHandler", "filename", "$@x + '.py'"),
    ("SaveImaged", "output_dir", "../../x"),
    ("SaveImaged", "output_dir", "C:\\x"),
]


@pytest.mark.parametrize(("target", "name", "value"), ARGUMENTS)
def test_argument_is_refused(target, name, value, bundle):
    edit(bundle, planted={"_target_": target, name: value})
    assert found(bundle, INFERENCE, "planted" if name == "_mode_" else f"planted::{name}"), audit(bundle)


@pytest.mark.parametrize("key", ["planted#reader", "planted::reader", "+planted#reader#0"])
def test_argument_given_by_an_override_is_refused(key, bundle):
    edit(bundle, planted={"_target_": "LoadImage"})
    edit(bundle, "configs/evaluate.json", **{key: "subprocess.call"})
    assert [f for f in audit(bundle) if f.file == "configs/evaluate.json" and f.key == key]


@pytest.mark.parametrize(("key", "value"), [("planted#_mode_", "callable"), ("planted::_target_", "LoadImage")])
def test_component_completed_by_an_override_is_refused(key, value, bundle):
    edit(bundle, planted={"_target_": "LoadImage" if "mode" in key else "Compose"})
    edit(bundle, "configs/evaluate.json", **{key: value})
    assert any(key in f.what for f in found(bundle, "configs/evaluate.json"))


def test_code_in_a_key_of_the_metadata_is_found(bundle):
    key = "0 or print(1)"
    edit(bundle, "configs/metadata.json", labels={key: "T1 (contrast)"})
    assert audit(bundle) == []
    edit(bundle, "configs/metadata.json", labels={key: {"y": "$[1][@::x]"}})
    assert any("a key with characters of code" in f.what for f in found(bundle, "configs/metadata.json"))
    edit(bundle, "configs/metadata.json", labels={key: "%configs/train.json::z"})
    edit(bundle, "configs/train.json", z={"x": "$[1][@::x]"})
    assert any("a key with characters of code" in f.what for f in found(bundle, "configs/metadata.json"))


@pytest.mark.parametrize("value", ["@_meta_::place", "%configs/metadata.json::place", "$@_meta_::place + 'x'"])
def test_a_place_in_the_metadata_is_judged_once_it_is_used(value, bundle):
    edit(bundle, "configs/metadata.json", place="/etc", source="https://h/x")
    assert audit(bundle) == []
    edit(bundle, planted={"_target_": "SaveImaged", "output_dir": value})
    assert found(bundle, "configs/metadata.json", "place")


def test_types_that_only_yaml_has(bundle):
    write(bundle, "configs/more.yaml", "a: !!binary c3VicHJvY2Vzcw==\nb: !!set {subprocess.call}\n")
    assert {f.key for f in found(bundle, "configs/more.yaml")} == {"a", "b"}


def test_code_in_a_key_is_found(bundle):
    key = "a or eval('1') or @bb"
    edit(bundle, bb={"x": 1}, planted=[{"a": 0, key: {"y": "$@::x"}}])
    assert any("a key with characters of code" in f.what for f in found(bundle, INFERENCE, "planted::0"))


@pytest.mark.parametrize("value", ["$@::x", "%::x", "@##x"])
def test_relative_references_need_plain_keys(value, bundle):
    edit(bundle, planted={"0 or x": {"x": 1, "y": value}})
    assert any("no plain name" in f.what for f in found(bundle, INFERENCE, "planted"))
    edit(bundle, planted={"left kidney": 1, "pytorch-ignite": 2})
    assert audit(bundle) == []


@pytest.mark.parametrize(
    "macro",
    [
        "%/tmp/evil.json::run",
        "%/tmp/evil.JSON::run",
        "%a::b/../../../evil.json::run",
        "%../evil.yaml#run",
        "%configs/absent.json::run",
        "%~/x.yml",
    ],
)
def test_macro_out_of_the_bundle_is_refused(macro, bundle):
    edit(bundle, planted=macro)
    assert found(bundle, INFERENCE, "planted")


@pytest.mark.parametrize("file", ["configs/large_files.json", "configs/large_files_more.JSON", "configs/x.YML"])
def test_every_json_and_yaml_is_judged_as_a_config(file, bundle):
    write(bundle, file, json.dumps({"run": COMMAND}))
    edit(bundle, planted=f"%{file}::run")
    assert found(bundle, file, "run::0")


def test_a_value_too_long_to_read_and_one_that_never_ends(bundle):
    edit(bundle, planted="%" + "a" * 20_000)
    assert "oversized text" in str(found(bundle, INFERENCE, "planted"))
    bomb = "a: &a [x, x]\n" + "".join(
        f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)
    )
    write(bundle, "configs/more.yaml", bomb)
    assert "oversized config" in str(found(bundle, "configs/more.yaml"))


def test_honest_configs_of_the_model_zoo_pass(bundle):
    zoo = {
        "dataset_dir": "/workspace/data/Task09_Spleen",
        "data_list_file_path": "/workspace/data/dataset.json",
        "tracking_uri": "$monai.utils.path_to_sqlite_uri(@output_dir + '/mlruns.db')",
        "scaler": {"_target_": "torch.cuda.amp.GradScaler", "enabled": True},
        "network_bn": {"_target_": "torch.nn.SyncBatchNorm.convert_sync_batchnorm", "module": "@network_def"},
        "sampler": {"_target_": "torch.utils.data.distributed.DistributedSampler", "dataset": "@d"},
        "loader": {"_target_": "torch.utils.data.DataLoader", "dataset": "@d", "batch_size": 1},
        "load": {"_target_": "LoadImaged", "keys": "image", "reader": "ITKReader"},
        "loads": {"_target_": "LoadImaged", "keys": "image", "reader": ["NibabelReader", "pilreader"]},
        "save": {"_target_": "SaveImaged", "keys": "pred", "writer": None, "output_dir": "@output_dir"},
        "resnet": {"_target_": "SENet154", "spatial_dims": 2, "in_channels": 1, "pretrained": False},
        "mlflow": {"_target_": "MLFlowHandler", "tracking_uri": "@tracking_uri", "run_name": None},
        "local": {"_target_": "MLFlowHandler", "tracking_uri": "file:///mlruns"},
        "cached": {"_target_": "PersistentDataset", "data": [], "cache_dir": "cache", "weights_only": True},
        "forward": {"_target_": "torch.nn.Conv3d", "_mode_": "callable", "in_channels": 1},
        "again": "%configs/train.json::network_def",
    }
    edit(bundle, "configs/multi_gpu_train.json", **zoo)
    assert audit(bundle) == []
