"""The report of a study: data in, one HTML page and matplotlib figures out; knows no store."""
