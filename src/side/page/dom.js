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

export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Runs once in the next frame, however often it is asked for. */
export function throttled(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    const run = () => {
      asked = false;
      work();
    };
    // A page in the background gets no frames.
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
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
