"""MONAI Deploy apps: MR series as DICOM in, a DICOM segmentation out, with a bundle in between."""
