"""Helpers for all rooms, independent of nuclei: errors, files, progress, lazy names, words."""
