"""Generated terrain and flights: what the demonstration, the tests and the demo backbone stand on."""
