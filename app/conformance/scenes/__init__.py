"""The scenes: what is done to the device, and what is made of its answer."""
