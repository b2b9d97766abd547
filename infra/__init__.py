"""How Darkroom is run: on one machine (`local`), in containers, and what keeps its lock files honest."""
