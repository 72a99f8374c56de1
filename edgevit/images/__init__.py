"""Images: files below a folder, and their pixels as a network needs them."""
