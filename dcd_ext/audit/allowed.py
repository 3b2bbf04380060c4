"""What a bundle may name without further questions. Everything else is shown to a person.

The lists are short on purpose: a name is here because configs need it and because it neither starts programs, nor
writes files, nor opens connections, nor unpickles. ``docs/share.md`` says how to read a finding.
"""

from __future__ import annotations

import re

__all__ = [
    *("BUILTINS", "CAREFUL_CLASSES", "CLASS_PACKAGES", "DENIED_CLASSES", "FUNCTIONS", "MODULES", "SIGNATURES"),
    *("SUBMODULES", "words"),
]


def words(text: str) -> frozenset[str]:
    """The words of a text: long lists of names stay readable."""
    return frozenset(text.split())


def _names(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in words(names))


# modules that may be imported; what may be used of them is decided name by name
MODULES = words(
    "collections copy datetime dcd_ext dynamic_network_architectures functools glob ignite itertools json logging math "
    "monai numpy openvino os pathlib random re scripts sys time torch torch_tensorrt typing warnings"
)

# what may be imported below them, besides the packages of classes
SUBMODULES = words(
    "os.path torch.distributed torch.nn.functional torch.cuda torch.cuda.amp torch.amp torch.backends "
    "torch.backends.cudnn torch.utils torch.utils.data torch.utils.data.distributed monai.utils monai.utils.misc "
    "ignite.engine dcd_ext.config dcd_ext.datalist dcd_ext.data dcd_ext.errors dcd_ext.networks dcd_ext.losses "
    "collections.abc"
)

# classes defined in these packages may be built by "_target_"
CLASS_PACKAGES = (
    *(
        "monai." + p
        for p in sorted(words("data engines handlers inferers losses metrics networks optimizers transforms"))
    ),
    "monai.utils.enums",
    *("ignite." + p for p in sorted(words("engine handlers metrics"))),
    *("torch." + p for p in sorted(words("nn optim"))),
    "dynamic_network_architectures",
    *("dcd_ext." + p for p in sorted(words("evaluation handlers losses schedules taps teacher wavelets"))),
)

# classes of those packages that unpickle whatever lies at a path, look a name up in any module, download, or log to a
# server
DENIED_CLASSES = re.compile(
    r"LMDB|CSV(Iterable)?Dataset|(Rand)?(TorchVision(?!FCModel)|TorchIO|CuCIM)|PerceptualLoss|\w+PerceptualSimilarity"
    r"|ClearML|MLflow|WandB|Neptune|Visdom|Polyaxon|FID\b|Inception|HoVerNet|Transchex|MultiModal|TextEncoder|MILModel"
    r"|EfficientNet|TRT|Trt|CameraDataset|ResNetFeatures|MCFCN|FCN\b|Video\w*Dataset|Trains"
)

# classes that take a name and look it up in any module, or have a switch that unpickles: configs may build them with
# arguments that are judged, but not hand them around
CAREFUL_CLASSES = re.compile(
    r"LoadImage|SaveImage|PatchInferer|ImageDataset|NumpyReader|\w*PersistentDataset|CacheNTransDataset|GDSDataset"
    r"|LearningRateFinder|\w*WSI|MLFlow|AHNet|DenseNet\d|FlexibleUNet|SENet|SERes|TorchVisionFC"
)

# functions of which not every argument is harmless: how many may be positional, and which may be named
SIGNATURES: dict[str, tuple[int, frozenset[str]]] = {
    "torch.compile": (1, frozenset()),
    "torch.load": (2, words("map_location weights_only")),
    "torch.jit.load": (1, words("map_location")),
    "torch.distributed.init_process_group": (1, words("backend")),
    "openvino.Core": (0, frozenset()),
    "openvino.convert_model": (1, words("input example_input")),
}

FUNCTIONS = frozenset().union(
    _names("os", "path.join path.isfile path.isdir path.exists path.basename path.dirname path.abspath path.realpath"),
    _names(
        "os",
        "path.normpath path.relpath path.splitext path.sep sep getcwd environ.get getenv sched_getaffinity cpu_count",
    ),
    _names("glob", "glob iglob escape"),
    _names("json", "loads dumps"),
    _names("sys", "exit stdout stderr maxsize version_info platform"),
    _names("logging", "getLogger DEBUG INFO WARNING ERROR CRITICAL"),
    _names("math", "ceil floor sqrt log log2 log10 exp prod pi inf nan isnan isinf gcd cos sin tan pow"),
    _names("random", "seed random uniform randint"),
    _names("re", "match search fullmatch sub split findall escape compile"),
    _names("time", "time perf_counter strftime localtime"),
    _names("datetime", "datetime.now timedelta"),
    _names("copy", "copy deepcopy"),
    _names("functools", "partial reduce"),
    _names("itertools", "chain product repeat islice zip_longest count combinations permutations"),
    _names("collections", "OrderedDict defaultdict Counter namedtuple"),
    _names("warnings", "filterwarnings simplefilter warn"),
    frozenset(SIGNATURES),
    _names("typing", "Any Callable Optional Sequence Mapping Union List Dict Tuple TYPE_CHECKING"),
    _names("numpy", "uint8 int8 uint16 int16 uint32 int32 int64 float16 float32 float64 bool_ pi inf nan newaxis"),
    _names("numpy", "arange array asarray linspace zeros ones prod sum mean max min round ceil floor sqrt log exp"),
    _names("numpy", "clip concatenate stack where unique argmax argmin isnan isfinite abs any all ndarray"),
    _names("numpy", "random.seed random.RandomState"),
    _names("torch", "device dtype Tensor tensor as_tensor zeros ones full arange linspace stack cat where argmax amax"),
    _names("torch", "softmax sigmoid clamp sum mean max min exp log sqrt abs any all unique round float32 float16"),
    _names("torch", "bfloat16 float64 uint8 int16 int32 int64 long half float bool channels_last channels_last_3d"),
    _names("torch", "contiguous_format preserve_format no_grad inference_mode manual_seed set_num_threads"),
    _names("torch", "set_float32_matmul_precision amp.autocast cuda.amp.autocast cuda.amp.GradScaler amp.GradScaler"),
    _names("torch", "get_num_threads Size isnan isfinite from_numpy"),
    _names("torch.jit", "freeze optimize_for_inference"),
    _names("torch.cuda", "is_available set_device device_count current_device get_device_name empty_cache"),
    _names("torch.backends", "cudnn.benchmark cudnn.deterministic cudnn.is_available mkldnn.is_available"),
    _names("torch.distributed", "is_available is_initialized get_rank get_world_size barrier"),
    _names("torch.distributed", "destroy_process_group"),
    _names("torch.utils.data", "Dataset IterableDataset DataLoader Subset ConcatDataset ChainDataset TensorDataset"),
    _names("torch.utils.data", "Sampler SequentialSampler RandomSampler SubsetRandomSampler WeightedRandomSampler"),
    _names("torch.utils.data", "BatchSampler random_split distributed.DistributedSampler"),
    _names("torch.nn", "SyncBatchNorm.convert_sync_batchnorm"),
    _names("torch.nn.functional", "interpolate pad softmax sigmoid relu leaky_relu one_hot log_softmax"),
    _names("monai.utils", "set_determinism ensure_tuple ensure_tuple_rep first path_to_sqlite_uri"),
    _names("monai.handlers", "from_engine utils.from_engine stopping_fn_from_metric stopping_fn_from_loss"),
    _names("monai.data", "decollate_batch list_data_collate pad_list_data_collate no_collation partition_dataset"),
    _names("monai.data", "utils.partition_dataset utils.list_data_collate utils.decollate_batch"),
    _names("monai.data", "load_decathlon_datalist load_decathlon_properties worker_init_fn utils.no_collation"),
    _names("monai.engines", "utils.default_prepare_batch default_prepare_batch"),
    _names(
        "dcd_ext",
        "config.check_keys datalist.load_cases errors.show_plainly data.require_checked data.choose_cache_rate",
    ),
    _names("dcd_ext", "losses.tune_prompts distributed.init_process_group distributed.destroy_process_group"),
    _names("dcd_ext", "networks.deep_supervision_weights networks.prepare_for_training teacher.load_teacher"),
)

BUILTINS = words(
    "abs all any bool callable dict divmod enumerate filter float frozenset hasattr int isinstance issubclass iter len "
    "list map max min next print range repr reversed round set slice sorted str sum tuple zip"
)
