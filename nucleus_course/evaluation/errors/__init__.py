"""What goes wrong, named and counted."""
