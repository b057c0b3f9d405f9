// One person in the frames of a camera: the server gives faces in any order, and now and then it misses one.

/** Least overlap (common over all area) of a person's boxes in two frames. */
const LEAST_OVERLAP = 0.25;
/** How long a person may be out of sight while others are seen. */
const PATIENCE_MS = 3000;

export class Person {
  /** Somebody with this face, at this place among others; without a face, whoever is seen first. */
  constructor(face = null, place = 0) {
    this.box = face?.box;
    this.place = place;
    this.seen = performance.now();
  }

  /** Finds this person's face among those of the next frame and gives its index, -1 if it is not there. */
  follow(faces) {
    const overlaps = faces.map((face) => (this.box ? overlap(this.box, face.box) : 1));
    const most = Math.max(...overlaps);
    if (!faces.length || most < LEAST_OVERLAP) return -1;
    const index = overlaps.indexOf(most);
    // Back to its place among the others, so that its button and number stay.
    const place = Math.min(this.place, faces.length - 1);
    [faces[place], faces[index]] = [faces[index], faces[place]];
    [this.box, this.seen] = [faces[place].box, performance.now()];
    return place;
  }

  isGone() {
    return performance.now() - this.seen > PATIENCE_MS;
  }
}

function overlap([x, y, width, height], [otherX, otherY, otherWidth, otherHeight]) {
  const along = (start, length, otherStart, otherLength) =>
    Math.max(0, Math.min(start + length, otherStart + otherLength) - Math.max(start, otherStart));
  const common = along(x, width, otherX, otherWidth) * along(y, height, otherY, otherHeight);
  return common / (width * height + otherWidth * otherHeight - common);
}
