// A text of any length, exactly as it is, line by line, with a quote marked. All positions here are in UTF-16 units.

import { button, element } from "./dom.js";
import { lineBreaksBefore } from "./text.js";

const PART = 1_000_000; // laid out at once; the rest when it is asked for
const LONGEST_LINE = 4_000; // a longer one goes on in a row of its own: laying out a line of megabytes takes minutes
const ROWS_IN_BLOCK = 50; // the browser skips whole blocks that are not on the screen
const UNITS_IN_ROW = 80; // about, to guess how high a block is before it has been laid out
const ROW_REM = 1.75;

export class TextView {
  /**
   * @param {string} text as it was indexed.
   * @param {{start: number, end: number}|null} quote to be marked.
   */
  constructor(text, quote) {
    this.text = text;
    this.quote = quote;
    this.lines = element("div", { class: "lines" });
    this.before = button("Show the lines before", () => this.#extendBefore(), { class: "quiet more" });
    this.after = button("Show the lines after", () => this.#extendAfter(), { class: "quiet more" });
    this.element = element("div", { class: "text" }, this.before, this.lines, this.after);
    this.#layOutAround(quote?.start ?? 0);
  }

  /** Scroll to the quote and go there with the keyboard, too. */
  goToQuote() {
    if (!this.#isLaidOut(this.quote.start)) this.#layOutAround(this.quote.start);
    const mark = this.lines.querySelector("mark");
    mark.tabIndex = -1;
    mark.focus({ preventScroll: true });
    scrollTo(mark);
  }

  /** Scroll to the line that a position is in. */
  goTo(position) {
    if (!this.#isLaidOut(position)) this.#layOutAround(position);
    const block = lastUpTo(this.lines.children, position);
    const row = lastUpTo(block.children, position);
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    scrollTo(row);
  }

  #isLaidOut(position) {
    return this.from <= position && position < this.to;
  }

  #layOutAround(position) {
    this.from = cutAt(this.text, position - PART / 2);
    this.to = cutAt(this.text, this.from + PART);
    this.lines.replaceChildren(...this.#blocks(this.from, this.to));
    this.#offerMore();
  }

  #extendBefore() {
    const from = cutAt(this.text, this.from - PART);
    this.lines.prepend(...this.#blocks(from, this.from));
    this.from = from;
    this.#offerMore();
  }

  #extendAfter() {
    const to = cutAt(this.text, this.to + PART);
    this.lines.append(...this.#blocks(this.to, to));
    this.to = to;
    this.#offerMore();
  }

  #offerMore() {
    this.before.hidden = this.from === 0;
    this.after.hidden = this.to === this.text.length;
  }

  *#blocks(from, to) {
    let number = lineBreaksBefore(this.text, from) + 1;
    let isLineStart = from === 0 || this.text[from - 1] === "\n";
    for (let start = from; start < to;) {
      const block = element("div", { class: "block" });
      block.start = start;
      let height = 0;
      while (start < to && block.childElementCount < ROWS_IN_BLOCK) {
        const end = rowEnd(this.text, start, to);
        block.append(this.#row(start, end, isLineStart ? number : null));
        height += Math.ceil((end - start) / UNITS_IN_ROW);
        isLineStart = this.text[end - 1] === "\n";
        number += isLineStart ? 1 : 0;
        start = end;
      }
      block.style.containIntrinsicBlockSize = `auto ${height * ROW_REM}rem`;
      yield block;
    }
  }

  #row(start, end, number) {
    const row = element("div", { class: "line", dir: "auto", "data-line": number });
    row.start = start;
    const { start: first, end: last } = this.quote ?? { start: 0, end: 0 };
    const markFrom = clamp(first, start, end);
    const markTo = clamp(last, start, end);
    if (markFrom === markTo) {
      row.textContent = this.text.slice(start, end);
    } else {
      const mark = element("mark", {}, this.text.slice(markFrom, markTo));
      row.append(this.text.slice(start, markFrom), mark, this.text.slice(markTo, end));
    }
    return row;
  }
}

/** Return where a row that starts at a position ends: after its line break, or where it is too long. */
function rowEnd(text, start, to) {
  const limit = wholeAt(text, Math.min(start + LONGEST_LINE, to));
  const breakAt = text.slice(start, limit).indexOf("\n");
  return breakAt === -1 ? limit : start + breakAt + 1;
}

/** Return a place near a position at which the text may be cut: the end of a line if there is one close before. */
function cutAt(text, position) {
  if (position <= 0) return 0;
  if (position >= text.length) return text.length;
  const after = text.lastIndexOf("\n", position - 1) + 1;
  return position - after <= LONGEST_LINE ? after : wholeAt(text, position);
}

/** Step back from the middle of a character of two units. */
function wholeAt(text, position) {
  return position < text.length && text.codePointAt(position - 1) > 0xffff ? position - 1 : position;
}

function lastUpTo(nodes, position) {
  return [...nodes].findLast((node) => node.start <= position);
}

function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

function scrollTo(node) {
  node.scrollIntoView();
  // What stands above is laid out only now, and may be higher than was guessed.
  requestAnimationFrame(() => node.scrollIntoView());
}
