"""The TFDS builder of prepared radiographs; in a folder of its own, where TFDS looks for metadata."""
