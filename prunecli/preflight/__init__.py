"""What can be known to fail without torch, so that it is said at once and before any work."""
