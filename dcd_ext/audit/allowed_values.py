"""What may be asked of a value in an expression: its methods, its attributes.

Nobody can tell what a value is without running the bundle, so a name is here only if it is harmless on everything that
a config can get hold of. ``Path.replace``, ``os.environ.update`` and ``generator.gi_frame`` are why these are lists of
what is allowed.
"""

from __future__ import annotations

from dcd_ext.audit.allowed import words

__all__ = ["ATTRIBUTES", "METHODS", "PATH_ATTRIBUTES", "PATH_METHODS"]

# of text, containers, tensors and modules, engines, loggers; they are called, never handed around
METHODS = words(
    "capitalize count endswith find format index isdigit join lower lstrip partition removeprefix removesuffix replace "
    "rpartition rsplit rstrip split splitlines startswith strip title upper zfill "
    "append copy extend get items keys values union intersection difference fromkeys "
    "all any argmax astype bool children clone contiguous cpu cuda detach dim double eval expand flatten float half "
    "int item long max mean min modules named_modules named_parameters numel numpy parameters permute prod "
    "requires_grad_ reshape size squeeze state_dict step stride sum to tolist train transpose type unsqueeze view "
    "buffers load_state_dict "
    "attach compile_model run set_epoch setLevel isoformat strftime"
)

# of tensors, arrays, devices, modules, engines and their states: data, never something to call
ATTRIBUTES = words(
    "affine batch batch_size dataset device dtype ema_model epoch epoch_length features_per_stage in_channels "
    "iteration max_epochs meta metrics ndim output out_channels pixdim requires_grad shape spatial_shape state T type"
)

# of pathlib.Path(...), and only written directly after it: as a value it could be replaced, unlinked, written
PATH_METHODS = words("exists is_dir is_file read_text as_posix")
PATH_ATTRIBUTES = words("name stem suffix parts")
