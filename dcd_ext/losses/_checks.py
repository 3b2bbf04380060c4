"""What a user can get wrong when making or calling a distillation loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dcd_ext.errors import UserError

__all__ = ["check_channels", "check_features", "check_options"]

_OPTIONS = {"level_reduction": ("joint", "per_level"), "projection": ("conv", "identity")}


def check_options(level_reduction: str, projection: str) -> None:
    """Raise :class:`UserError` for an unknown word."""
    for name, value in (("level_reduction", level_reduction), ("projection", projection)):
        if value not in _OPTIONS[name]:
            words = " or ".join(map(repr, _OPTIONS[name]))
            raise UserError("unknown option", name, words, repr(value), "correct the spelling")


def check_channels(student: Sequence[int], teacher: Sequence[int], projection: str) -> None:
    """Raise :class:`UserError` unless both list one width per stage (and equal ones for identity projections)."""
    if len(student) != len(teacher) or not student:
        raise UserError(
            "numbers of stages differ",
            "student_channels, teacher_channels",
            "one width per stage in each, at least one stage",
            f"{len(student)} and {len(teacher)}",
            "tap the same stages in both networks",
        )
    for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
        if projection == "identity" and s != t:
            raise UserError(
                "widths differ", f"stage {i}", f"{t} student channels", s, "set projection='conv' to align them"
            )


def check_features(
    student: Sequence[torch.Tensor],
    teacher: Sequence[torch.Tensor],
    student_channels: Sequence[int],
    teacher_channels: Sequence[int],
) -> None:
    """Raise :class:`UserError` unless the features have the widths announced and share batch and grid per stage."""
    for name, features, channels in (("student", student, student_channels), ("teacher", teacher, teacher_channels)):
        if len(features) != len(channels):
            raise UserError(
                "wrong number of stages",
                f"{name} features",
                f"{len(channels)} tensors",
                len(features),
                "tap one module per entry of student_channels and teacher_channels",
            )
        for i, (feature, width) in enumerate(zip(features, channels, strict=True)):
            if feature.ndim != 5 or feature.shape[1] != width:
                raise UserError(
                    f"{name} feature does not fit",
                    f"stage {i}",
                    f"shape (B, {width}, D, H, W)",
                    tuple(feature.shape),
                    f"correct {name}_channels or the tapped modules",
                )
    for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
        if s.shape[0] != t.shape[0] or s.shape[2:] != t.shape[2:]:
            raise UserError(
                "student and teacher grids differ",
                f"stage {i}",
                f"batch and grid {(t.shape[0], *t.shape[2:])} as the teacher's",
                (s.shape[0], *s.shape[2:]),
                "tap stages with equal strides; both networks must see the same batch",
            )
