// Text from outside, made harmless to look at.
//
// Everything that a store holds was written by somebody else. It only ever becomes a text node; here
// it is also cut, and what a terminal or a browser would obey instead of show (ANSI, bidirectional
// controls, zero-width and lone surrogates) is spelled out, so that it is seen.

/** The most characters of one value in a row. */
export const MOST = 2000;

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;

function spelled(character) {
  if (character === "\n" || character === "\t") return character;
  const code = character.codePointAt(0).toString(16);
  return code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u{${code}}`;
}

/** A value as bounded text without anything that acts instead of being shown. */
export function clean(value, most = MOST) {
  const text = typeof value === "string" ? value : String(value);
  const shown = text.length > most ? text.slice(0, most) : text;
  const safe = shown.replace(UNSEEN, spelled);
  return text.length > most ? `${safe}… (${text.length.toLocaleString("en")} characters)` : safe;
}

/** The same on one line. */
export function line(value, most = MOST) {
  return clean(value, most).replace(/[\n\t ]+/g, " ").trim();
}

/** An attribute value of any type, as one would write it. */
export function value(found) {
  if (typeof found === "string") return found;
  if (found === null || found === undefined) return "—";
  return typeof found === "object" ? JSON.stringify(found) : String(found);
}
