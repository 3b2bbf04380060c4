"""``$`` expressions: what is evaluated is what is judged, and only what is on the lists passes."""

import pytest

from dcd_ext.audit.bundle import audit
from tests.audit.planting import INFERENCE, edit, found, write


@pytest.mark.parametrize(
    "expression",
    [
        "$__import__('os').system('x')",
        "$().__class__.__base__.__subclasses__()",
        "$monai.data.utils.os.system('x')",
        "$monai.utils.misc.run_cmd(['x'])",
        "$torch.load('x')",
        "$torch.hub.load('a', 'b')",
        "$numpy.load('x', allow_pickle=True)",
        "$monai.bundle.run(config_file='x')",
        "$getattr(monai, 'bundle')",
        "$map(eval, ['1'])",
        "$(lambda f: f('1'))(exec)",
        "$[x for x in (open('a', 'w'),)]",
        "$sys.modules['os'].system('x')",
        "$@evaluator.os.system('x')",
        "$@network.__init__.__globals__",
        "$pathlib.Path('x').write_text('y')",
        "$pathlib.Path('x').replace('y')",
        "$map(pathlib.Path.unlink, @files)",
        "$os.environ.update({'LD_PRELOAD': 'x'})",
        "$import subprocess",
        "$from os import system",
        "$import os as glob",
        "$from monai.utils.misc import run_cmd as first",
        "$import os; os.system('x')",
        "$(x := os)",
        "$9 ** 9 ** 9",
        "$f'{os.system(1)}'",
        "$vars(os)",
        "  $os.system('x')",
        "$\tos.system('x')",
        "$[os for os in [1]]",
        "$" + "(" * 240 + "1" + ")" * 240,
    ],
)
def test_expression_is_refused(expression, bundle):
    edit(bundle, planted=expression)
    assert [f for f in audit(bundle) if f.key == "planted"]


@pytest.mark.parametrize(
    "expression",
    [
        "$max(f // 2 for f in @features)",
        "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "$torch.nn.Conv3d",
        "$import numpy as np",
        "$from monai.transforms import Compose",
        "$monai.utils.enums.InterpolateMode.LINEAR",
        "$@train#trainer.run()",
        "$os.environ['LOCAL_RANK']",
        "$lambda x: [xx['image'].meta for xx in x]",
        "$pathlib.Path(@dataset_dir).exists()",
    ],
)
def test_plain_expression_passes(expression, bundle):
    edit(bundle, planted=expression)
    assert audit(bundle) == []


BYPASSES = {
    "a bound name is known everywhere": "$[lambda eval: 0, eval('1')]",
    "a bound name of a module": "$[0 for glob in [@x]]",
    "a comment that becomes a slice": "$[0][0 #__import__('os').system('x') or 1\n]",
    "a reference that ends a text": '$\'@f {__import__("os").system("x")}\'',
    "a modulo that looks like a macro": "$(lambda x: x%eval('1'))(1)",
    "modulo, plainly": "$1 %eval('1')",
    "a relative macro": "$1 %::eval",
    "an alias that is never bound": "$from monai.transforms import Compose, Compose as eval",
    "an alias of a builtin": "$from monai.transforms import Compose as eval",
    "an alias of one of MONAI's own names": "$import torch.nn.functional as np",
    "several names": "$import glob, json",
    "an import that binds no name": "$import torch.hub",
    "a name bound by import a.b": "$torch.distributed.os.system",
    "a module in a key": "$list(map(@osmod.system, ['x']))",
    "a module in a key, called": "$@osmod.run('x')",
    "a module in a list": "$[m.run('x') for m in @imports]",
    "a module by a relative reference": "$@::osmod.run('x')",
    "a module by its inner name": "$__local_refs['osmod'].run('x')",
    "a module by its inner name, in other letters": "$＿＿local_refs['osmod'].run('x')",
    "all references": "$__local_refs.get('osmod')",
    "a module in the metadata": "$@_meta_::osmod.run('x')",
    "partial of a method": "$functools.partial(@network.save, 'x')",
    "partial, called": "$functools.partial(print, 'x')()",
    "a method as a value": "$list(map(@network.save, ['x']))",
    "the environment": "$list(map(os.environ.update, [{'X': '1'}]))",
    "the environment, assigned": "$[0 for os.environ['X'] in ['1']]",
    "an attribute, assigned": "$[0 for monai.utils.first in [print]]",
    "a path's parent": "$pathlib.Path('x/y').parent",
    "a path": "$pathlib.Path('x')",
    "a path's parent, written": "$pathlib.Path('x/y').parent.write_text('z')",
    "a path moved by reference": "$@p.replace('z')",
    "a path's method": "$pathlib.Path('x').unlink",
    "a generator's frame": "$(x for x in [1]).gi_frame.f_builtins['eval']('1')",
    "a frame handed over": "$(lambda g: g.gi_frame.f_back.f_globals)(x for x in [1])",
    "a code object": "$@f.__code__.co_consts",
    "a call of an item": "$@x['y'][0]('z')",
    "a call of an item of a list": "$[print][0]('z')",
    "options of a compiler": "$torch.compile(@n, options={'cpp.cxx': ['x']})",
    "a compiler as a value": "$list(map(torch.compile, [@n]))",
    "another host": "$torch.distributed.init_process_group('gloo', init_method='tcp://h:1')",
    "another host, by position": "$torch.distributed.init_process_group('gloo', @x)",
    "an extension": "$openvino.convert_model(@m, extension='x')",
    "unpickling": "$torch.load('x', weights_only=False)",
    "unpickling, computed": "$torch.load('x', weights_only=not True)",
    "unpickling, unpacked": "$torch.load('x', **{'weights_only': False})",
    "unpickling, by map": "$list(map(torch.load, ['x']))",
    "a reader": "$monai.transforms.LoadImage(reader='subprocess.call')",
    "a reader, by position": "$monai.transforms.LoadImage('subprocess.call')",
    "a reader, unpacked": "$monai.transforms.LoadImage(*['subprocess.call'])",
    "a reader, by map": "$list(map(monai.transforms.LoadImage, ['subprocess.call']))",
    "a reader that is no class": "$monai.transforms.LoadImaged(keys='image', reader='eval')",
    "a merger": "$monai.inferers.PatchInferer(merger_cls='antigravity.x')",
    "a text that reads attributes": "$'{0.__globals__[sys].modules}'.format(os.path.join)",
    "a nested field that reads attributes": "$'{0.__class__:{1}}'.format(1, 2)",
    "a file to print to": "$print('x', file=@writer)",
    "an attribute switched": "$setattr(torch.backends.cudnn, 'benchmark', @x)",
    "an attribute set": "$setattr(@network, 'forward', print)",
    "DataFrame.eval": "$@table.eval('@pd.x')",
    "an address": "$@x + 'http://h/y'",
    "a path elsewhere": "$json.loads('/etc/passwd')",
    "a path elsewhere, joined": "$os.path.join('/etc', 'x')",
    "a path elsewhere, added to nothing": "$'' + '/etc/x'",
    "a path upwards": "$@bundle_root + '/../../x'",
    "a home": "$os.path.join('~', 'x')",
}


@pytest.mark.parametrize("expression", BYPASSES.values(), ids=BYPASSES)
def test_bypass_is_refused_at_its_key(expression, bundle):
    edit(bundle, f=1, x=1, osmod="$import os", tools="$import functools", ov="$import openvino", planted=expression)
    assert found(bundle, INFERENCE, "planted"), audit(bundle)
    assert {f.file for f in audit(bundle)} <= {INFERENCE, "configs/metadata.json"}


def test_an_import_of_a_config_that_is_not_loaded_gives_no_name(bundle):
    write(bundle, "configs/other.json", '{"imports": ["$from monai.transforms import Compose as eval"]}')
    edit(bundle, planted="$eval('1')")
    assert found(bundle, "configs/other.json", "imports::0")


@pytest.mark.parametrize("value", ["@osmod", "@imports", "%osmod", "%imports", ["@osmod"]])
def test_a_module_is_not_handed_on(value, bundle):
    edit(bundle, osmod="$import os", planted=value)
    assert found(bundle, INFERENCE, "planted")


@pytest.mark.parametrize(
    ("deep", "problems"),
    [("$" + "-" * 400 + "1", ["oversized expression: more than 200 parts"]), ("$" + "[" * 90 + "]" * 90, [])],
)
def test_deep_expressions_end(deep, problems, bundle):
    edit(bundle, planted=deep)
    assert [f.what for f in audit(bundle)] == problems


ZOO = [
    "$@num_epochs % 2",
    "$'%s_%d' % (@x, 1)",
    "$setattr(torch.backends.cudnn, 'benchmark', True)",
    "$monai.data.utils.partition_dataset(@x, num_partitions=dist.get_world_size(), shuffle=True)[dist.get_rank()]",
    "$monai.utils.CommonKeys.PRED",
    "$monai.utils.InterpolateMode.LINEAR",
    "$from pathlib import Path",
    "$torch.load(@ckpt_path, weights_only=True)",
    "$@network_def.load_state_dict(torch.load(@ckpt_path, map_location=@device, weights_only=True))",
    "$@lr_scheduler.step()",
    "$torch.cuda.amp.GradScaler()",
    "$torch.nn.SyncBatchNorm.convert_sync_batchnorm(@network_def)",
    "$dist.is_initialized() or dist.init_process_group(backend='nccl')",
    "$torch.device(f\"cuda:{os.environ['LOCAL_RANK']}\")",
    "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
    "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels)]",
    "$monai.data.load_decathlon_datalist(@datalist, data_list_key='training', base_dir=@dataset_dir)",
    "$@evaluator.state.metrics['val_mean_dice']",
    "$lambda x: torch.where(x['label'] > 0, 1, 0)",
    "$monai.handlers.stopping_fn_from_metric('val_mean_dice')",
    "$sum(p.numel() for p in @network.parameters() if p.requires_grad)",
    "$str(pathlib.Path(@dataset_dir)) + '/labels'",
    "$pathlib.Path(@dataset_dir).parent.name",
    "$@x.replace('/', '_')",
    "$'{:.2f}'.format(@x)",
    "$torch.compile(@network)",
    "$@train#trainer.state.epoch",
    "$@::y * 2",
]


@pytest.mark.parametrize("expression", ZOO)
def test_idiom_of_the_model_zoo_passes(expression, bundle):
    edit(bundle, "configs/train.json", planted=expression, needed="$import torch.distributed as dist")
    assert audit(bundle) == []
