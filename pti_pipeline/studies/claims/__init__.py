"""The note's claims, answered on the embedded world."""
