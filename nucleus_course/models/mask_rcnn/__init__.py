"""Mask R-CNN, one idea of the paper a file."""
