"""The settings of a run: their types and ranges, and the command line that sets them."""
