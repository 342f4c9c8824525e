"""`tabor doctor`: looks at what Tabor stands on, and says what is wrong and what to do. It changes nothing."""
