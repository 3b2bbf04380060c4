"""The MONAI Label app and the script that starts it."""
