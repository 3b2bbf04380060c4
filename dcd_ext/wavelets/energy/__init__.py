"""The engine of the fast detail loss."""
