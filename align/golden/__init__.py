"""Golden recordings: what a reference computed, in one small file that a port is judged by without the reference."""
