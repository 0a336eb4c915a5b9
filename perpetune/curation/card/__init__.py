"""The pictures of the data card, one file each: inline SVG in the colours of the page, light and dark."""
