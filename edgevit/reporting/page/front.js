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

/** [device, its rows] of every device with rows among these, in the order of the report. */
function ofDevices(entries) {
  const groups = REPORT.devices.map((_, number) => [number, entries.filter((entry) => entry.device === number)]);
  return groups.filter(([, group]) => group.length);
}

/** [device, its front], the same way. */
function fronts(entries) {
  return ofDevices(entries).map(([number, group]) => [number, front(group)]);
}

/**
 * What `edgevit choose` picks of one device's rows within a budget in milliseconds; undefined where none fits: the most
 * accurate, and of equally accurate ones that the device cannot tell from the fastest the smallest.
 */
function pick(entries, budget) {
  const held = (entry) => latency(entry, state.percentile).held_ms;
  const fitting = entries.filter((entry) => entry.usable && held(entry) !== null && held(entry) <= budget);
  const worst = (number) => number ?? Infinity;
  const rank = (entry) => [-(entry.top1_percent ?? -Infinity), held(entry), worst(entry.size_mb), ...called(entry)];
  const [best, ...rest] = sortedBy(fitting, rank);
  if (!best) return undefined;
  const limit = (1 + REPORT.devices[best.device].resolution_share) * held(best);
  const alike = rest.filter((entry) => entry.top1_percent === best.top1_percent && held(entry) <= limit);
  return sortedBy([best, ...alike], (entry) => [worst(entry.size_mb), ...rank(entry)])[0];
}

/** [device, its pick within the budget of the moment, if there is one]; nothing without a budget. */
function answers() {
  if (state.budget === null) return [];
  return ofDevices(shown()).map(([device, entries]) => [device, pick(entries, state.budget)]);
}

function called(entry) {
  return [entry.model, entry.target, entry.precision, entry.threads, entry.measurement_id];
}

/** By lists of numbers and texts, which are compared from their beginning. */
function sortedBy(entries, key) {
  const keys = new Map(entries.map((entry) => [entry, key(entry)]));
  return [...entries].sort((a, b) => {
    const [one, other] = [keys.get(a), keys.get(b)];
    const at = one.findIndex((value, i) => value !== other[i]);
    return at < 0 ? 0 : one[at] < other[at] ? -1 : 1;
  });
}
