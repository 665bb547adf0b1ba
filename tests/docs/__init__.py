"""The documentation: its generated pages, its links, and that the commands it quotes exist."""
