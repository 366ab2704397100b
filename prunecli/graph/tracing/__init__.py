"""Trace a network once, exported or recorded."""
