"""A generator of images like those of one class of train: its networks, its training, the judging of samples."""
