"""Writes cmyk.jpg: 16 x 16 pixels of orange, in the four inks of print. Needs Pillow (13.0 was used)."""

from PIL import Image

Image.new("CMYK", (16, 16), (0, 128, 255, 0)).save("cmyk.jpg", quality=95)
