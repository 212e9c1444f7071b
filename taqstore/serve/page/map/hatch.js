// The hatching of missing values on a canvas, in the colours of the theme.
import { colour } from "../theme.js";

/** A pattern of thin diagonals. */
export function hatching(context, ratio) {
  const size = Math.round(6 * ratio);
  const tile = document.createElement("canvas");
  tile.width = size;
  tile.height = size;
  const pen = tile.getContext("2d");
  pen.fillStyle = colour("--missing");
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = colour("--missing-line");
  pen.lineWidth = Math.max(1, ratio);
  pen.beginPath();
  for (const at of [-size, 0, size]) {
    pen.moveTo(at, size);
    pen.lineTo(at + size, 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}
