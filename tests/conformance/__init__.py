"""The conformance examination, and the devices that pass it or fail it."""
