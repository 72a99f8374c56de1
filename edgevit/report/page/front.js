// Where a row stands on the horizontal axis, and which rows nothing beats.

/** Milliseconds at the percentile and bound that are looked at; null where they are not known. */
function placed(entry) {
  const told = latency(entry, state.percentile);
  return state.at === 'bound' ? told.held_ms : told.ms;
}

function isDrawn(entry) {
  return entry.usable && entry.top1_percent !== null && placed(entry) !== null;
}

/** The rows of one device that no other one beats: fastest first, each more accurate than all before it. */
function front(entries) {
  const drawn = entries.filter(isDrawn);
  drawn.sort(
    (a, b) =>
      placed(a) - placed(b) || b.top1_percent - a.top1_percent || (a.size_mb ?? Infinity) - (b.size_mb ?? Infinity),
  );
  const found = [];
  for (const entry of drawn) {
    if (!found.length || entry.top1_percent > found.at(-1).top1_percent) found.push(entry);
  }
  return found;
}

/** [device, its front] of every device with rows among these, in the order of the report. */
function fronts(entries) {
  const groups = REPORT.devices.map((_, number) => entries.filter((entry) => entry.device === number));
  return groups.map((group, number) => [number, front(group)]).filter(([number]) => groups[number].length);
}

/** The most accurate row of a front within a budget in milliseconds; undefined where none fits. */
function pick(line, budget) {
  return line.filter((entry) => placed(entry) <= budget).at(-1);
}
