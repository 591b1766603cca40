"""The page that a browser gets from the query port: static files, and who may have them."""
