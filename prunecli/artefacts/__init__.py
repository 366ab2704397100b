"""From a file to a module and back, with its provenance and history."""
