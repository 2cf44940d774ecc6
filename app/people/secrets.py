"""How random secrets are stored: as a hash that finds them and gives nothing away."""

import hashlib


def hash_of(secret: str) -> bytes:
    """Hash a secret of 256 random bits; so much randomness needs no salt."""
    return hashlib.sha256(secret.encode()).digest()
