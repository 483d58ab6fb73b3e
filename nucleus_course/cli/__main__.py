"""`python -m nucleus_course.cli`."""

from nucleus_course.cli import main

main()
