"""What runs at the door: it asks the server for commands and drives the relay."""


class AgentError(Exception):
    """The agent cannot go on without somebody's help."""
