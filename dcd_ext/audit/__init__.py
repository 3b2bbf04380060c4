"""Read a stranger's bundle as data. Nothing in here imports torch or MONAI."""
