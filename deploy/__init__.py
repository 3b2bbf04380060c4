"""Where other people's servers open the bundles: MONAI Label (``label``) and MONAI Deploy (``dicom``)."""
