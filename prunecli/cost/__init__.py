"""What a network costs, in closed form: FLOPs, parameters, activations, bytes, latency."""
