"""Errors: classes, features of the objects, costs in average precision."""
