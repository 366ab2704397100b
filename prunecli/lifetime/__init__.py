"""How processes begin, meet each other and end: imports, claims on outputs, and interrupts."""
