"""The roads of analyze: a network, and a data set."""
