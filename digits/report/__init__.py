"""What a person looks at: tables on the terminal, plots, the table of a sweep."""
