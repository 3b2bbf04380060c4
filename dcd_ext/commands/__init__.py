"""The commands of ``dcd``, one file each."""
