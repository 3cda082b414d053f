"""What runs in the sandboxes, on the standard library alone: a program, and the judge of it."""
