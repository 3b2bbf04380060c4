"""Build, read, check, pack and export bundles."""
