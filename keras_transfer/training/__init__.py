"""Training: plans carried out, watched and audited."""
