/** What probabilities lead to: calls, and how they are said. */

/** Returns the class that an answer is called: of the calls whose threshold is reached, the likeliest, else the first. */
export function calledOf(probability, page) {
  const reached = page.calls
    .map(({ label, threshold }) => ({ label, threshold, value: probability[page.classes.indexOf(label)] }))
    .filter(({ value, threshold }) => value >= threshold);
  if (!reached.length) return page.classes[0];
  return reached.reduce((best, next) => (next.value > best.value ? next : best)).label;
}

/** Returns the classes that are possible at the error rate of the page; null where it does not know. */
export function possibleOf(probability, { sets }) {
  return sets && sets.classes.filter((_, index) => probability[index] >= sets.lowest[index]);
}

/** Returns whether another class than the called one is possible, or none; null where the page does not know. */
export function isUncertain(probability, page) {
  const possible = possibleOf(probability, page);
  return possible && !(possible.length === 1 && possible[0] === calledOf(probability, page));
}

/** Returns the sentence about the classes that are possible, where more or fewer are than the called one. */
export function doubtOf(probability, page) {
  if (!isUncertain(probability, page)) return "";
  const possible = possibleOf(probability, page);
  const told = possible.length ? `possible: ${possible.join(", ")}` : "no class is possible";
  return `Uncertain: at an error rate of ${Math.round(100 * page.sets.error_rate)} % for each class, ${told}.`;
}

/** Returns a probability as the page writes it. */
export function probabilityText(value) {
  if (value >= 0.9995) return value === 1 ? "1" : "above 0.999";
  return value < 0.0005 && value > 0 ? "below 0.001" : value.toFixed(3);
}

/** Returns how a reader and the network did on the phantoms that the reader has called. */
export function scoreOf(items, page) {
  const called = items.filter((item) => item.drawnAs && item.yourCall && item.found);
  const right = (choose) => called.filter((item) => choose(item) === item.drawnAs).length;
  const each = page.classes.map((label) => {
    const drawn = called.filter((item) => item.drawnAs === label);
    return { label, count: drawn.length, right: drawn.filter((item) => item.yourCall === label).length };
  });
  return {
    count: called.length,
    yours: right((item) => item.yourCall),
    network: right((item) => calledOf(item.found.probability, page)),
    each: each.filter(({ count }) => count),
  };
}
