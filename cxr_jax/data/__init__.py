"""Radiographs from files to grey arrays: sources, splits, prepared data, decoded caches and phantoms."""
