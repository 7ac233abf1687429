"""What may go wrong, done on purpose: numbers against goals, one module a part."""
