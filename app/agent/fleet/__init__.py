"""A fleet: thousands of controllers in one process, with real HTTP and virtual faults, by seed."""
