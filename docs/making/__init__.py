"""What the site makes of the code: its contents, commands and modules."""
