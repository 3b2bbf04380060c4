"""nnU-Net v2 in and out: a results folder becomes bundles, a bundle becomes a results folder. Without nnunetv2."""
