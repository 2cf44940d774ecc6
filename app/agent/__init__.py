"""What runs at the door: it asks the server for commands and drives the relay."""
