"""Command lines: `tortie operator` and what people type. Reads options, starts a process, prints; decides nothing."""
