"""Trained networks put to use on files."""
