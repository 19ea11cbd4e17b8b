"""Known bugs, put into a copy of the port one at a time, to see whether the verdict turns red and where."""
