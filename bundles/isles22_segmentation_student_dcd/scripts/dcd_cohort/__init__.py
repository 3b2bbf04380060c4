"""Inference of many cases, one by one: which files, which names, and what to do with a case that fails.

``dcd build`` copies this room into every bundle (``scripts/dcd_cohort``), so that inference runs without this package:
it imports MONAI, torch and ``dcd_cohort.errors`` only.
"""
