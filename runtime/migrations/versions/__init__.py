"""Contains the revisions; the number in a name is its order."""
