"""How processes meet each other and their end: claims on outputs, and interrupts."""
