/** The table of all radiographs, on the page and as a file. */

import { calledOf, callsOf, isOfFindings, isOfOthers, isPositive, isUncertain, possibleOf, probabilityText } from "./calls.js";

const columnsOf = (page) => [
  "file", "probability", ...(isOfOthers(page) ? page.classes.map((label) => `probability_${label}`) : []), "label", "threshold", "threshold_rule", "uncertain", "possible", "error_rate", "warnings",
  "compared_with_training", "model", "films", "disclaimer", "error", "your_call", "drawn_as",
];

/** Returns an element with text, of a class if one is given. */
export function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Fills in the head of the table. */
export function drawHead(row, page, teaching) {
  const titles = ["File", ...page.calls.map(({ label }) => `P(${label})`), "Call"];
  if (teaching) titles.push("Your call", "Drawn as");
  row.replaceChildren(...titles.map((title) => {
    const cell = element("th", title, title.startsWith("P(") ? "number" : "");
    cell.scope = "col";
    return cell;
  }));
}

/** Returns the row of a radiograph; `choose` is called when its name is pressed. */
export function rowOf(item, { page, teaching, shown, choose }) {
  const row = document.createElement("tr");
  const name = element("th", "", "file");
  name.scope = "row";
  const button = element("button", item.name, "plain");
  button.type = "button";
  button.disabled = !item.found && !item.mistake;
  button.setAttribute("aria-current", String(shown));
  button.addEventListener("click", () => choose(item));
  name.append(button);
  row.append(name);
  if (item.mistake) {
    const cell = element("td", item.mistake, "failed");
    cell.colSpan = page.calls.length + (teaching ? 3 : 1);
    row.append(cell);
    return row;
  }
  const withheld = teaching && !item.yourCall;
  for (const { label } of page.calls) {
    const told = item.found && !withheld ? probabilityText(item.found.probability[page.classes.indexOf(label)]) : "–";
    row.append(element("td", told, "number"));
  }
  row.append(callCell(item, page, withheld));
  if (teaching) {
    const mark = item.yourCall && item.drawnAs ? (item.yourCall === item.drawnAs ? " ✓" : " ✗") : "";
    row.append(element("td", item.yourCall ? item.yourCall + mark : "–"));
    row.append(element("td", item.yourCall && item.drawnAs ? item.drawnAs : "–"));
  }
  return row;
}

function callCell(item, page, withheld) {
  if (!item.found) return element("td", "reading …");
  if (withheld) return element("td", "hidden until your call");
  const called = calledOf(item.found.probability, page);
  const uncertain = isUncertain(item.found.probability, page);
  const cell = element("td", uncertain ? "uncertain" : called, !uncertain && isPositive(called, page) ? "called" : "");
  const count = item.found.remarks.length;
  if (count) cell.append(element("small", count === 1 ? "1 remark" : `${count} remarks`));
  return cell;
}

/** Returns the table as the text of a CSV file, with the columns of `cxr-jax predict --csv` and two of the teaching. */
export function csvOf(items, page, teaching) {
  const lines = [columnsOf(page), ...items.filter((item) => item.found || item.mistake).map((item) => fieldsOf(item, page, teaching))];
  return lines.map((fields) => `${fields.map(quoted).join(",")}\n`).join("");
}

function fieldsOf(item, page, teaching) {
  const [call] = page.calls;
  const told = item.found && !(teaching && !item.yourCall);
  return [
    item.name,
    told ? statedOf(item.found.probability, page) : "",
    ...(isOfOthers(page) ? page.classes.map((_, place) => (told ? item.found.probability[place] : "")) : []),
    told ? callsOf(item.found.probability, page).join("|") || calledOf(item.found.probability, page) : "",
    isOfOthers(page) ? "" : call.threshold,
    call.rule,
    ...(told && page.sets ? doubtFields(item.found.probability, page) : ["", "", page.sets?.error_rate ?? ""]),
    told ? item.found.remarks.join("; ") : "",
    item.found && page.quality.length ? "True" : "False",
    page.name,
    page.films,
    page.disclaimer,
    item.mistake ?? "",
    item.yourCall ?? "",
    item.yourCall ? (item.drawnAs ?? "") : "",
  ];
}

/** Returns the one probability of a row: of the class with a threshold, of the likeliest of others, none of findings. */
function statedOf(probability, page) {
  if (isOfFindings(page)) return "";
  return isOfOthers(page) ? Math.max(...probability) : probability[page.classes.indexOf(page.calls[0].label)];
}

function doubtFields(probability, page) {
  const uncertain = isUncertain(probability, page) ? "True" : "False";
  return [uncertain, possibleOf(probability, page).join("; "), page.sets.error_rate];
}

function quoted(field) {
  const text = String(field);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
