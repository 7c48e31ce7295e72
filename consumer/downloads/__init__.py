"""The web app behind the download links."""
