"""Figures that only the notebooks need: pure functions that return (Figure, caption)."""
