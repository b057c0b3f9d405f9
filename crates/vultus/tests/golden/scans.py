"""Writes progressive.jpg and restarts.jpg, 40 x 30 pixels. Needs Pillow (13.0 was used)."""

from PIL import Image

picture = Image.new("RGB", (40, 30))
picture.putdata([(x * 6 % 256, y * 8 % 256, x * y * 7 % 251) for y in range(30) for x in range(40)])
picture.save("progressive.jpg", progressive=True, quality=80)
picture.save("restarts.jpg", quality=80, restart_marker_blocks=2)
