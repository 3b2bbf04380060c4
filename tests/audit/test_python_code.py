"""Code of a bundle, its logging.conf, and the downloads it asks for."""

import json

import pytest

from dcd_ext.audit.bundle import audit
from dcd_ext.errors import UserError
from dcd_ext.share.large_files import check_address
from tests.audit.planting import INFERENCE, edit, found, write

BODIES = {
    "builtins": "class N:\n    def __init__(self):\n        __builtins__['exec']('1')\n",
    "run_cmd": "from monai.utils.misc import run_cmd\n",
    "an alias": "import os\n\n\ndef f():\n    o = os\n    o.system('x')\n",
    "else": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    pass\nelse:\n    print('x')\n",
    "a decorator": "import torch\n\n\n@torch.hub.load\ndef f():\n    pass\n",
    "load": "from torch import load\n",
    "a hub": "from torch.hub import load\n",
    "an extension": "from torch.utils.cpp_extension import load_inline\n",
    "a map": "import numpy as np\n\n\ndef f():\n    np.memmap('x', mode='w+', shape=3)\n",
    "a path": "import pathlib\n\n\ndef f():\n    pathlib.Path('x').write_text('y')\n",
    "a module": "import os\n",
    "a plain network": "from torch import nn\n\n\nclass Net(nn.Module):\n    pass\n",
    "syntax": "def (",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_code_of_its_own_is_always_a_finding(body, bundle):
    write(bundle, "scripts/__init__.py", '"""Scripts."""\n\nfrom .n import N\n')
    write(bundle, "scripts/n.py", body)
    assert found(bundle, "scripts/n.py")
    assert not found(bundle, "scripts/__init__.py")


def test_a_module_behind_a_script(bundle):
    write(bundle, "scripts/n.py", "import os\n")
    edit(bundle, more="$import scripts.n as sn", planted="$sn.os.system('x')")
    assert found(bundle, INFERENCE, "planted") and found(bundle, "scripts/n.py")


LOGGING = {
    "interpolated": ("args=(sys.stdout,)", 'zz=x"if y else"x\nargs=("%(zz)s",)', "[handler_consoleHandler] args"),
    "a name in bytes": ("args=(sys.stdout,)", "args=(b'/tmp/x','w')", "[handler_consoleHandler] args"),
    "an absolute name": ("args=(sys.stdout,)", "args=('/tmp/x','w')", "[handler_consoleHandler] args"),
    "a name upwards": ("args=(sys.stdout,)", "args=('../x','w')", "[handler_consoleHandler] args"),
    "a program written as a log": ("args=(sys.stdout,)", "args=('glob.py','w')", "[handler_consoleHandler] args"),
    "defaults": (
        "[formatter_fullFormatter]",
        "[formatter_fullFormatter]\ndefaults=__import__('os').system('x') and {}",
        "[formatter_fullFormatter] defaults",
    ),
    "an interpolated class": ("class=StreamHandler", "zz=os.system\nclass=%(zz)s", "[handler_consoleHandler] class"),
    "an interpolated level": ("level=INFO\nformatter", "level=%(zz)s\nformatter", "[handler_consoleHandler] level"),
}


@pytest.mark.parametrize(("old", "new", "key"), LOGGING.values(), ids=LOGGING)
def test_logging_that_evaluates_or_writes_elsewhere(old, new, key, bundle):
    file = "configs/logging.conf"
    text = (bundle / file).read_text()
    assert old in text
    write(bundle, file, text.replace(old, new, 1))
    assert found(bundle, file, key), audit(bundle)


HONEST = {"path": "models/model.pt", "url": "https://h/x.pt", "hash_type": "sha256", "hash_val": "ab" * 32}
DOWNLOADS = {
    "code": {"path": "torch_tensorrt.py"},
    "a config": {"path": "configs/train.json"},
    "upwards": {"path": "models/../x.pt"},
    "deeper": {"path": "models/x/y.pt"},
    "a host that looks like this machine": {"url": "http://127.0.0.1.evil.example/x"},
    "a user that looks like this machine": {"url": "http://127.0.0.1@h/x"},
    "a user": {"url": "https://github.com@h/x"},
    "http": {"url": "http://h/x"},
    "no host": {"url": "https:///x"},
    "no sum": {"hash_val": ""},
    "a short sum": {"hash_val": "ab"},
    "md5": {"hash_type": "md5"},
    "another field": {"progress": "x"},
}


@pytest.mark.parametrize("change", DOWNLOADS.values(), ids=DOWNLOADS)
@pytest.mark.parametrize("name", ["large_files.yml", "large_files_more.json"])
def test_download_is_refused(change, name, bundle):
    write(bundle, name, json.dumps({"large_files": [HONEST]}))
    assert audit(bundle) == []
    write(bundle, name, json.dumps({"large_files": [{**HONEST, **change}]}))
    assert found(bundle, name, "large_files::0")


@pytest.mark.parametrize(
    "content",
    [
        *('{"+large_files": []}', '{"large_files#0": {}}', '{"large_files": 3}', '{"large_files": ["a"]}', "[1]", "3"),
        *("", '{"large_files": [], "run": []}', "{"),
    ],
)
def test_malformed_downloads_are_findings_and_no_traceback(content, bundle):
    write(bundle, "large_files.json", content)
    assert found(bundle, "large_files.json")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1.evil.example/x", "http://127.0.0.1@h/x", "https://", "http://h", "x"]
)
def test_weights_are_not_published_at_such_an_address(url):
    with pytest.raises(UserError, match="address of the weights"):
        check_address(url)
    check_address("http://127.0.0.1:8000/x")
    check_address("https://example.org/x")
