"""Weights on disk: model folders, imports from other projects, downloads."""
