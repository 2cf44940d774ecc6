"""A living sample city: stations, simulated controllers, a trickle of simulated workers."""
