// The service counts in code points, as its documents do; a string here is counted in UTF-16 units.

/** Return the position in units of a position in code points, null when the text is shorter. */
export function unitsAt(text, codePoints) {
  let units = 0;
  for (let left = codePoints; left > 0; left -= 1) {
    if (units >= text.length) return null;
    units += text.codePointAt(units) > 0xffff ? 2 : 1;
  }
  return units;
}

/** Count code points. */
export function countCodePoints(text) {
  let count = text.length;
  for (let units = 0; units < text.length; units += 1) {
    if (text.codePointAt(units) > 0xffff) {
      count -= 1;
      units += 1;
    }
  }
  return count;
}

/** Count the line breaks before a position in units. */
export function lineBreaksBefore(text, end) {
  let count = 0;
  for (let at = text.indexOf("\n"); at !== -1 && at < end; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}

// A line shorter than this was ended on purpose; a longer one because the page was full.
const WRAPPED_FROM = 48;
const STARTS_ANEW = /^(\s|[-*+•|>#=~`:]|\d+[.)]\s)/;

/**
 * Let prose that was wrapped at some width flow: its line breaks become spaces, one for one, so that positions stay.
 * Lists, tables, code and verse keep theirs.
 */
export function flowing(text) {
  const lines = text.split("\n");
  return lines.reduce((flowed, line, number) => {
    const before = lines[number - 1];
    const wasFull = before.length >= WRAPPED_FROM && !before.endsWith("|");
    return `${flowed}${wasFull && line !== "" && !STARTS_ANEW.test(line) ? " " : "\n"}${line}`;
  });
}
