"""A stand-in for fal: its queue protocol, signed callbacks and request listing, with faults on demand and a ledger."""
