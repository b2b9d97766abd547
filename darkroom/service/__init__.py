"""What the program does, one use case a file, in terms of domain and ports."""
