"""The traced network that every question starts from."""
