"""The traced graph: channel ids, what ties them, and graphs written as plain data."""
