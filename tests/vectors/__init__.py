"""The machine-readable test vectors of the controller's protocol, and what holds them true."""
