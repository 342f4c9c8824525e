"""The commands `tabor backup` and `tabor restore`."""
