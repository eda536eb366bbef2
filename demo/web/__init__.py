"""A folder that shows 2D and 3D live in a browser: page, networks, and what runs them."""
