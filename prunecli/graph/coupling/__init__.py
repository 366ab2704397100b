"""Channel ids, and the groups of channels that go together."""
