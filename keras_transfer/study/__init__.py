"""Step 8: what runs many fits, and says what they show."""
