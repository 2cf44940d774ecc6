"""HTTP for administrators: role and unit scope on every call."""
