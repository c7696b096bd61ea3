/** One radiograph in large: its picture, and what the network says of it once that may be told. */

import { calledOf, doubtOf, explainedOf, isOfFindings, isOfOthers, isPositive, probabilityText, told } from "./calls.js";
import { draw, heatOf, parsed } from "./picture.js";
import { element } from "./table.js";

const find = (id) => document.getElementById(id);

const isPressed = (button) => button.getAttribute("aria-pressed") === "true";

/** Returns a button for a call. */
function choice(text, act) {
  const button = element("button", text, "choice");
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

/** Shows one radiograph at a time. */
export class Viewer {
  #page;
  #colours;
  #item = null;
  #heat = null;
  #explained = null;
  #withheld = false;

  /** `callMade` is told which class the reader of this page has called. */
  constructor(page, callMade) {
    this.#page = page;
    this.#colours = parsed(page.colours);
    const strength = find("strength");
    strength.value = String(Math.round(page.strength * 100));
    strength.addEventListener("input", () => this.#paint());
    find("choices").replaceChildren(...(isOfFindings(page) ? this.#findings(callMade) : page.classes.map((label) => {
      return choice(label, () => callMade(this.#item, label));
    })));
    const select = find("explained");
    select.replaceChildren(...page.classes.map((label) => element("option", label)));
    select.addEventListener("change", () => {
      this.#explain(select.value);
      this.#paint();
    });
  }

  /** Returns a button for each finding, which is pressed or not, and one that makes the call. */
  #findings(callMade) {
    const buttons = this.#page.classes.map((label) => {
      const button = choice(label, () => button.setAttribute("aria-pressed", String(!isPressed(button))));
      button.setAttribute("aria-pressed", "false");
      return button;
    });
    const done = choice("That is my call", () => {
      const pressed = buttons.filter(isPressed);
      callMade(this.#item, told(pressed.map((button) => button.textContent)));
    });
    done.classList.add("primary");
    return [...buttons, done];
  }

  #explain(label) {
    this.#explained = label;
    this.#heat = heatOf(this.#item.found, this.#page, label);
  }

  /** Shows a radiograph; with `withheld` nothing of the answer. */
  show(item, withheld) {
    this.#item = item;
    this.#withheld = withheld;
    // what was pressed was about another radiograph
    for (const button of find("choices").querySelectorAll("[aria-pressed]")) button.setAttribute("aria-pressed", "false");
    find("shown-name").textContent = item.name;
    const failed = Boolean(item.mistake);
    find("picture").hidden = failed;
    find("caption").textContent = "";
    find("asking").hidden = failed || !withheld;
    find("told").hidden = !failed && withheld;
    find("strength-row").hidden = failed || withheld;
    find("explained-row").hidden = failed || withheld || !isOfOthers(this.#page);
    for (const part of ["scales", "promise", "remarks", "compared", "marking"]) find(part).hidden = failed;
    if (failed) {
      find("marking").textContent = "";
      find("verdict").replaceChildren(element("span", "Not read", "quiet"), element("span", item.mistake, "reason"));
      return;
    }
    this.#heat = null;
    if (!withheld) {
      this.#explain(explainedOf(item.found.probability, this.#page));
      find("explained").value = this.#explained;
    }
    this.#paint();
    if (!withheld) this.#tell(item);
  }

  #paint() {
    const { found, name } = this.#item;
    const percent = Number(find("strength").value);
    find("strength-told").textContent = `${percent} %`;
    find("strength").setAttribute("aria-valuetext", `${percent} %`);
    draw(find("picture"), found.preview, this.#heat, percent / 100, this.#colours);
    const label = this.#withheld ? null : this.#explained;
    const shows = label && this.#heat && percent;
    const picture = `Radiograph ${name}, ${found.width} x ${found.height} pixels`;
    find("picture").setAttribute("aria-label", shows ? `${picture}, with a heat map of what speaks for ${label}` : picture);
    const blank = label && !this.#heat ? `Nothing in the picture speaks for ${label}.` : "";
    find("caption").textContent = this.#withheld ? "" : blank || `Warm colours: what speaks for ${label}.`;
  }

  #tell(item) {
    const { found, yourCall, drawnAs } = item;
    const page = this.#page;
    const called = calledOf(found.probability, page);
    find("verdict").replaceChildren(
      element("span", yourCall ? "The network calls it" : "Called", "quiet"),
      element("strong", called, isPositive(called, page) ? "called" : ""),
      element("span", doubtOf(found.probability, page), "reason"),
    );
    const marking = find("marking");
    marking.hidden = !yourCall;
    marking.textContent = "";
    if (yourCall) {
      const right = drawnAs ? yourCall === drawnAs : null;
      marking.className = `marking ${right === null ? "" : right ? "right" : "wrong"}`;
      marking.textContent = drawnAs
        ? `You called it ${yourCall}: ${right ? "right" : "wrong"}. It was drawn as ${drawnAs}.`
        : `You called it ${yourCall}${yourCall === called ? ", as the network does" : ", other than the network"}.`;
    }
    find("scales").replaceChildren(...page.calls.map((call) => this.#scale(call, found)));
    // of several findings each promise stands below its own scale
    find("promise").textContent = isOfOthers(page) ? "" : page.calls.map(({ promise }) => promise).join(" ");
    find("remarks").hidden = found.remarks.length === 0;
    find("remarks-list").replaceChildren(...found.remarks.map((remark) => element("li", `${remark[0].toUpperCase()}${remark.slice(1)}.`)));
    const count = page.training_images.toLocaleString("en-US");
    const like = `Compared with the ${count} training images: nothing unusual in brightness, sharpness, rotation or markers.`;
    const compared = found.remarks.length ? `Compared with the ${count} training images.` : like;
    find("compared").textContent = page.quality.length ? compared : "Not compared with the training images: the run was not evaluated.";
  }

  #scale({ label, threshold, promise }, found) {
    const value = found.probability[this.#page.classes.indexOf(label)];
    const scale = element("div", "", "scale");
    const head = element("p", "", "scale-head");
    head.append(element("span", `P(${label})`), element("strong", probabilityText(value)));
    const track = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    track.setAttribute("class", "track");
    track.setAttribute("aria-hidden", "true");
    const add = (kind, attributes) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", kind);
      for (const [name, given] of Object.entries(attributes)) shape.setAttribute(name, given);
      track.append(shape);
    };
    add("rect", { class: "rail", width: "100%", height: 12, rx: 6, y: 4 });
    const reached = threshold !== null && value >= threshold;
    add("rect", { class: reached ? "fill called" : "fill", width: `${100 * Math.max(value, 0.012)}%`, height: 12, rx: 6, y: 4 });
    if (threshold !== null) add("rect", { class: "mark", x: `${100 * threshold}%`, width: 2, height: 20 });
    const from = threshold === null ? "Called where it is the highest" : `Called from ${probabilityText(threshold)} on`;
    scale.append(head, track, element("p", isOfFindings(this.#page) ? `${from}. ${promise}` : from, "facts"));
    return scale;
  }
}
