"""Lung masks beside prepared radiographs: matched by file, checked, stored, and resized as the images are."""
