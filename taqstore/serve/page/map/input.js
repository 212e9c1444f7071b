// Mouse, fingers and keys on a heat map.

const CLICK = 4;

/**
 * Listen on the stage of a heat map.
 *
 * A click opens the cell. A drag marks what to zoom to; with Shift, or a finger on a zoomed map, it
 * moves. The wheel scrolls the page until Ctrl is held (as touchpads do when pinched) or the map is
 * zoomed: then it moves through the rows. Returns what stops it.
 */
export function gestures(stage, map) {
  const pointers = new Map();
  let start = null;
  let pinch = null;

  function local(event) {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  function down(event) {
    if (event.button !== 0) return;
    const at = local(event);
    pointers.set(event.pointerId, at);
    if (pointers.size === 2) {
      start = null;
      map.brush(null);
      pinch = distance();
      return;
    }
    const moves = event.shiftKey || (event.pointerType === "touch" && !map.view().isWhole());
    start = { ...at, last: at, moves, dragged: false };
    if (event.pointerType !== "touch" || moves) stage.setPointerCapture(event.pointerId);
  }

  function distance() {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  }

  function move(event) {
    const at = local(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, at);
    if (pinch !== null && pointers.size === 2) return pinched();
    if (start === null) return hovered(at);
    if (Math.hypot(at.x - start.x, at.y - start.y) > CLICK) start.dragged = true;
    if (!start.dragged) return undefined;
    if (start.moves) pan(start.last, at);
    else if (event.pointerType !== "touch") map.brush([start.x, start.y, at.x, at.y]);
    start.last = at;
    return undefined;
  }

  function pinched() {
    const now = distance();
    const [a, b] = [...pointers.values()];
    const place = map.placeAt((a.x + b.x) / 2, (a.y + b.y) / 2);
    if (place && now > 0) map.zoom(pinch / now, place);
    pinch = now;
  }

  function pan(from, to) {
    const [a, b] = [map.placeAt(from.x, from.y), map.placeAt(to.x, to.y)];
    map.view().move(a.row - b.row, a.column - b.column);
    map.changed();
  }

  function hovered(at) {
    const cell = map.cellAt(at.x, at.y);
    if (cell) map.point(cell.row, cell.column);
  }

  function up(event) {
    pointers.delete(event.pointerId);
    if (pointers.size < 2) pinch = null;
    const begun = start;
    start = null;
    map.brush(null);
    if (begun === null || event.type === "pointercancel") return;
    const at = local(event);
    if (!begun.dragged) {
      const cell = map.cellAt(at.x, at.y);
      if (cell) {
        map.point(cell.row, cell.column);
        map.pick(cell.row, cell.column);
      }
    } else if (!begun.moves && event.pointerType !== "touch") zoomTo(begun, at);
  }

  function zoomTo(from, to) {
    const [a, b] = [map.placeAt(from.x, from.y), map.placeAt(to.x, to.y)];
    const ends = (x, y) => [Math.floor(Math.min(x, y)), Math.ceil(Math.max(x, y))];
    map.view().put(...ends(a.row, b.row), ...ends(a.column, b.column));
    map.changed();
  }

  function wheel(event) {
    const at = local(event);
    const place = map.placeAt(at.x, at.y);
    if (!place?.inside) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      map.zoom(Math.exp(Math.max(-50, Math.min(50, event.deltaY)) / 120), place);
    } else if (!map.view().isWhole()) {
      const { view } = map.view();
      const before = view.r0 + view.c0;
      const rows = ((view.r1 - view.r0) * event.deltaY) / 900;
      map.view().move(rows, ((view.c1 - view.c0) * event.deltaX) / 900);
      // At the end of the map the page scrolls on.
      if (view.r0 + view.c0 !== before) {
        event.preventDefault();
        map.changed();
      }
    }
  }

  function key(event) {
    if (event.altKey || event.metaKey || (event.ctrlKey && !["Home", "End", "c"].includes(event.key))) return;
    const act = ACTIONS[event.key];
    if (!act) return;
    event.preventDefault();
    act(map, event);
  }

  const listeners = {
    pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, keydown: key,
  };
  for (const [name, f] of Object.entries(listeners)) stage.addEventListener(name, f);
  stage.addEventListener("wheel", wheel, { passive: false });
  stage.addEventListener("focus", () => {
    // By key, not by mouse: where the reader is, is said at once.
    if (stage.matches(":focus-visible")) step(map, 0, 0);
  });
  return () => {
    for (const [name, f] of Object.entries(listeners)) stage.removeEventListener(name, f);
    stage.removeEventListener("wheel", wheel);
  };
}

function step(map, rows, columns) {
  const { row, column } = map.cursor();
  const [most, wide] = map.counts();
  const within = (x, count) => Math.min(count - 1, Math.max(0, x));
  map.point(within(row + rows, most), within(column + columns, wide), { spoken: true });
}

const ACTIONS = {
  ArrowUp: (map) => step(map, -1, 0),
  ArrowDown: (map) => step(map, 1, 0),
  ArrowLeft: (map) => step(map, 0, -1),
  ArrowRight: (map) => step(map, 0, 1),
  PageUp: (map) => step(map, -10, 0),
  PageDown: (map) => step(map, 10, 0),
  Home: (map, event) => step(map, event.ctrlKey ? -Infinity : 0, -Infinity),
  End: (map, event) => step(map, event.ctrlKey ? Infinity : 0, Infinity),
  "+": (map) => map.zoom(0.6),
  "=": (map) => map.zoom(0.6),
  "-": (map) => map.zoom(1 / 0.6),
  0: (map) => { map.view().all(); map.changed(); },
  c: (map) => map.copy(),
  Enter: (map) => map.pick(map.cursor().row, map.cursor().column),
};
