"""Detail Consistent Distillation for MONAI: wavelet detail losses, distillation handlers, data preparation, evaluation."""

__version__ = "0.1.0"
