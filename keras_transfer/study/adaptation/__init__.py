"""Labels in one domain, none in the other: what was learnt in the first is carried to the second."""
