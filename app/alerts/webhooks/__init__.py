"""Webhooks: alerts told to other systems, signed, after the commit that caused them."""
