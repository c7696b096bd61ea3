"""Train, judge and explain networks that look for pneumonia on chest radiographs."""

__version__ = "0.1.0"
