"""Jobs: the request, the states, and all the SQL about them."""
