"""What every room may use: errors, files, progress, lazy names, words. Nothing about nuclei."""
