/** What probabilities lead to: calls, and how they are said. */

const NO_FINDING = "No Finding";

/** Returns whether an image may show several of the classes of the page. */
export const isOfFindings = (page) => page.kind === "findings";

/** Returns whether the classes are others than those that one threshold tells apart. */
export const isOfOthers = (page) => isOfFindings(page) || page.calls.some(({ threshold }) => threshold === null);

/** Returns the classes whose threshold an answer reaches, in the order of the page. */
function reachedOf(probability, page) {
  return page.calls
    .map(({ label, threshold }) => ({ label, threshold, value: probability[page.classes.indexOf(label)] }))
    .filter(({ value, threshold }) => threshold !== null && value >= threshold);
}

const likeliest = (found) => found.reduce((best, next) => (next.value > best.value ? next : best)).label;

/** Returns the likeliest of all classes. */
function highestOf(probability, page) {
  return likeliest(page.classes.map((label, place) => ({ label, value: probability[place] })));
}

/** Returns what an answer is called: one class, or every finding that is called. */
export function callsOf(probability, page) {
  const reached = reachedOf(probability, page);
  if (isOfFindings(page)) return reached.map(({ label }) => label);
  if (isOfOthers(page)) return [highestOf(probability, page)];
  return [reached.length ? likeliest(reached) : page.classes[0]];
}

/** Returns the same in words; findings are joined by commas, as `told` joins those that a reader calls. */
export const calledOf = (probability, page) => told(callsOf(probability, page));

/** Returns calls in words. */
export const told = (calls) => calls.join(", ") || NO_FINDING;

/** Returns whether the call is one that asks for a look: any finding, or another class than the first of two. */
export function isPositive(called, page) {
  if (isOfFindings(page)) return called !== told([]);
  return !isOfOthers(page) && called !== page.classes[0];
}

/** Returns the class whose heat map is shown first: the called one, of findings the likeliest of those or of all. */
export function explainedOf(probability, page) {
  if (!isOfFindings(page)) return calledOf(probability, page);
  const reached = reachedOf(probability, page);
  return reached.length ? likeliest(reached) : highestOf(probability, page);
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
  const which = possible.length ? `possible: ${possible.join(", ")}` : "no class is possible";
  return `Uncertain: at an error rate of ${Math.round(100 * page.sets.error_rate)} % for each class, ${which}.`;
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
