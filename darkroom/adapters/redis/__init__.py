"""Redis or Valkey: the one holder of the records. Every change is one script in lua/; Python only reads and asks."""
