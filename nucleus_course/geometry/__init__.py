"""Boxes, masks, run lengths and the watershed: arrays in, arrays out."""
