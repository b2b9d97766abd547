"""One room per outside thing. Adapters take plain values; only entry points read settings and build them."""
