"""HTTP in, HTTP out: the front (hot path), the control app and the composition root."""
