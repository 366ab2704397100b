"""The command line of prunecli."""
