"""The door: HTTP in, records out; no business rules."""
