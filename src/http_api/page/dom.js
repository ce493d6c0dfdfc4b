// Elements and what is said with them. Text goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children; strings become text. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function s(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A state's shape: colour alone says nothing to many people. */
export function shape(name) {
  return s("svg", { class: `shape ${name}`, viewBox: "0 0 12 12", "aria-hidden": "true", focusable: "false" },
    s("use", { href: `#shape-${name}` }));
}

/** Sets text only if it differs, so that nothing is drawn or read out for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute, or removes it; true if that has changed something. */
export function mark(element, name, value) {
  const wanted = value === null || value === undefined || value === false ? null : String(value);
  if (element.getAttribute(name) === wanted) return false;
  if (wanted === null) element.removeAttribute(name);
  else element.setAttribute(name, wanted);
  return true;
}

/** Runs once in the next frame, however often it is asked for, and `apart_ms` after the last time at the earliest. */
export function throttled(work, apart_ms = 0) {
  let asked = false;
  let last = -Infinity;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      asked = false;
      last = performance.now();
      work();
    };
    const wait = last + apart_ms - performance.now();
    // A page in the background gets no frames.
    if (document.hidden || wait > 0) setTimeout(run, Math.max(wait, document.hidden ? 200 : 0));
    else requestAnimationFrame(run);
  };
}

/** Puts a text on the clipboard; true if it is there. Browsers have the modern way on https and on localhost only. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "vh", readonly: true, "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

export function kept(name) {
  try {
    return localStorage.getItem(`tokencached.${name}`);
  } catch {
    return null;
  }
}

export function keep(name, value) {
  try {
    localStorage.setItem(`tokencached.${name}`, value);
  } catch {
    // A browser may keep nothing for anybody; then the choice lasts as long as the page.
  }
}
