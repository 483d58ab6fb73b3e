"""From an image to nuclei, and to files that other programs read."""
