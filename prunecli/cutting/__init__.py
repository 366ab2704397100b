"""What a cut does to a module: its tensors, its integer attributes, its attention temperature."""
