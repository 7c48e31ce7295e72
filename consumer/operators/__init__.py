"""The operators' page and its JSON API, on the internal port."""
