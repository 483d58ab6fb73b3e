"""The demo, the HTML report, the paper's table, and what this machine has."""
