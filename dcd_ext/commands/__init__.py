"""The commands of ``dcd``, one file each; ``main.py`` says what such a file holds."""
