"""How good a network is on images."""
