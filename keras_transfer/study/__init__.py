"""Step 8: evidence. Which body, which method, what the data themselves say; all on train and validation."""
