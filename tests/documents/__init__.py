"""What the documents say is so: tables, figures, names, links, and the commands in them."""
