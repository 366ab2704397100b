"""Small networks trained on handwritten digits, to try things on."""
