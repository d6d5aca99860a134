// A chat over the documents for any page: <script src="https://HOST/widget.js" data-key="whence_pub_…" async></script>
//
// One file, nothing else is loaded. It defines <whence-chat>, whose shadow root keeps the looks of the page and ours
// apart; the root is open, so that tools which check a page for barriers see into it, and it is no wall in any case.
// What a document says becomes text nodes and nothing else. No markup is parsed, no style stands in any, no cookie is
// sent: a page needs to allow HOST in `script-src` and `connect-src`, and nothing more.
"use strict";

(() => {
  const NAME = "whence-chat";

  // What of the widget's own words can be replaced, in `data-strings`. What is in braces is filled in.
  const STRINGS = {
    title: "Ask the documents",
    close: "Close",
    newChat: "New chat",
    conversation: "Conversation",
    question: "Your question",
    placeholder: "Ask a question…",
    send: "Send",
    note: "Answers are quoted word for word.",
    asked: "You asked:",
    looking: "Looking in the documents…",
    searchedAs: "Searched as: {question}",
    standalone: "Ask just what I wrote",
    veryLikely: "Very likely the answer",
    likely: "Likely the answer",
    possibly: "Possibly the answer",
    seeAlso: "See also",
    source: "Source {number}:",
    newTab: "(opens in a new tab)",
    preview: "Show the quote of source {number}",
    page: "page {first}",
    line: "line {first}",
    lines: "lines {first}–{last}",
    nearest: "These places come nearest:",
    copy: "Copy with citation",
    copied: "Copied",
    notCopied: "Your browser does not let this page copy",
    helpful: "This helped",
    unhelpful: "This did not help",
    why: "What was wrong?",
    offTopic: "Not what was asked",
    incomplete: "Incomplete",
    outdated: "Out of date",
    missed: "The documents do say it",
    lacking: "The documents should say it",
    ownWords: "In your own words",
    cancel: "Cancel",
    thanks: "Thank you. This is kept for those who look after the documents.",
    notKept: "This was not kept.",
    retry: "Try again",
    retryIn: "Try again in {seconds} s",
    interrupted: "This was not answered yet.",
    offline: "There is no connection to the service.",
    refused: "This page may not use this chat: its address is not among those that were allowed.",
    unauthorized: "This chat is not set up: its key is missing, unknown or expired.",
    tooMany: "Too many questions were asked. Please wait a moment.",
    busy: "The service is busy or just starting.",
    unasked: "This cannot be asked.",
    broken: "Something went wrong.",
  };
  const WORDS_OF = { // codes of the service, and two of our own
    offline: "offline", interrupted: "interrupted", origin_refused: "refused", scope_missing: "unauthorized",
    key_required: "unauthorized", key_unknown: "unauthorized", key_expired: "unauthorized", rate_exceeded: "tooMany",
    overloaded: "busy", deadline: "busy", starting: "busy", index_unavailable: "busy", invalid_question: "unasked",
    invalid_request: "unasked",
  };
  const MAX_MESSAGES = 64; // what the service takes
  const MAX_MESSAGE = 20_000;
  const MAX_QUESTION = 4_000;
  const MAX_REASON = 2_000;
  const MAX_TURNS = MAX_MESSAGES / 2; // kept and shown
  const SOURCES = 3; // of an answer
  const SILENCE_MS = 45_000; // a service at work says so every 15 s
  const UNKEPT = new Set(["metadata", "scores", "also_in", "prefix", "suffix", "model"]); // of a reply, in the tab
  const LINKED = new Set(["http:", "https:", "mailto:", "tel:"]);
  const PUBLIC_KEY = "whence_pub_";
  const TOLD = 16; // digits of the digest in an address
  const WRAPPED_FROM = 48; // a shorter line was ended on purpose, a longer one because the page was full
  const STARTS_ANEW = /^(\s|[-*+•|>#=~`:]|\d+[.)]\s)/;
  const SVG = "http://www.w3.org/2000/svg";
  const ICONS = { // lines in a square of 16
    chat: "M2.5 3h11v8h-6L4 13.8V11H2.5z M5.2 6h5.6 M5.2 8.2h3.6",
    close: "m4 4 8 8 M12 4l-8 8",
    anew: "M8 3H3v10h10V8 M6.5 9.5 7 7.4 12 2.5l1.5 1.5-5 5z",
    send: "M8 13.5v-11 M3.5 7 8 2.5 12.5 7",
    more: "m4 6 4 4 4-4",
    copy: "M5.5 5.5h8v8h-8z M10.5 5.5v-3h-8v8h3",
    up: "M5 7.5 8 2c1.4 0 1.9 1 1.6 2.2L9 6.5h4.2c.9 0 1.4.8 1.1 1.6l-1.4 4.6c-.2.5-.6.8-1.1.8H5z M5 7.5H2v6h3",
    down: "M5 8.5 8 14c1.4 0 1.9-1 1.6-2.2L9 9.5h4.2c.9 0 1.4-.8 1.1-1.6l-1.4-4.6c-.2-.5-.6-.8-1.1-.8H5z M5 8.5H2v-6h3",
  };
  const STYLE = `
    :host {
      all: initial; color-scheme: light dark; overflow-wrap: anywhere;
      font: var(--whence-font-size, medium)/1.5 var(--whence-font, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif);
      --back: var(--whence-background, light-dark(#fffefb, #1d1b18));
      --raised: var(--whence-surface, light-dark(#f4f0e8, #2a2722));
      --ink: var(--whence-text, light-dark(#23201b, #ebe7de));
      --soft: var(--whence-muted, light-dark(#655f55, #b0a99c));
      --edge: var(--whence-border, light-dark(#d9d2c4, #46423a));
      --accent: var(--whence-accent, light-dark(#874606, #f2b863));
      --on-accent: var(--whence-on-accent, light-dark(#ffffff, #241703));
      --mark: var(--whence-mark, light-dark(#ffe694, #5c4510));
      --wrong: var(--whence-error, light-dark(#9d2b1f, #f0978a));
      --serif: var(--whence-quote-font, "Iowan Old Style", Charter, Cambria, Georgia, "Noto Serif", "Liberation Serif", serif);
      --round: var(--whence-radius, 14px);
      --shade: 0 8px 40px -8px rgb(0 0 0 / .35), 0 1px 3px rgb(0 0 0 / .12);
    }
    :host([data-theme="light"]) { color-scheme: light; }
    :host([data-theme="dark"]) { color-scheme: dark; }
    :host(:not([data-bubble])) { display: block; height: var(--whence-height, 36rem); }
    :host([data-bubble]) { display: contents; }
    :host([hidden]) { display: none; }
    * { box-sizing: border-box; margin: 0; padding: 0; font: inherit; color: inherit; min-inline-size: 0; }
    ol, ul { list-style: none; }
    fieldset { border: 0; }
    [hidden] { display: none !important; }
    .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
    button, a, summary { cursor: pointer; }
    button { border: 1px solid transparent; border-radius: 8px; background: none; text-align: start; }
    button:disabled { cursor: default; }
    a { color: var(--accent); text-underline-offset: .2em; text-decoration-thickness: 1px; }
    :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    svg { flex: none; width: 18px; height: 18px; fill: none; stroke: currentColor; stroke-width: 1.4; stroke-linecap: round; stroke-linejoin: round; vertical-align: middle; }
    .icon { flex: none; display: inline-grid; place-items: center; width: 36px; height: 36px; color: var(--soft); }
    .icon:hover { background: var(--raised); color: var(--ink); }
    .small { font-size: .8125em; color: var(--soft); }

    .bubble { position: fixed; z-index: var(--whence-z-index, 2147483000); inset-block-end: var(--whence-gap, 20px); inset-inline-end: var(--whence-gap, 20px); display: grid; place-items: center; width: 56px; height: 56px; border-radius: 50%; background: var(--accent); color: var(--on-accent); box-shadow: var(--shade); }
    .bubble:hover { filter: brightness(1.1); }
    .bubble:focus-visible { outline-color: var(--ink); }
    .bubble svg { width: 26px; height: 26px; }
    :host([data-position="start"]) .bubble { inset-inline: var(--whence-gap, 20px) auto; }

    .panel { position: relative; display: flex; flex-direction: column; overflow: hidden; background: var(--back); color: var(--ink); border: 1px solid var(--edge); border-radius: var(--round); }
    section.panel { height: 100%; }
    dialog.panel { position: fixed; inset: auto; inset-block-end: var(--whence-gap, 20px); inset-inline-end: var(--whence-gap, 20px); width: min(var(--whence-width, 400px), calc(100vw - 2 * var(--whence-gap, 20px))); max-width: none; height: min(var(--whence-height, 660px), calc(100dvh - 2 * var(--whence-gap, 20px))); max-height: none; box-shadow: var(--shade); }
    dialog.panel:not([open]) { display: none; }
    dialog.panel::backdrop { background: none; }
    :host([data-position="start"]) dialog.panel { inset-inline: var(--whence-gap, 20px) auto; }

    .head { display: flex; align-items: center; gap: 2px; padding: 10px; padding-inline-start: 18px; border-block-end: 1px solid var(--edge); }
    h2 { flex: 1; font: 600 1.0625em/1.3 var(--serif); }
    .log { flex: 1; position: relative; overflow: hidden auto; padding: 18px; overscroll-behavior: contain; }
    .log:focus-visible { outline-offset: -2px; }
    .log > * + *, .turns > li + li { margin-block-start: 22px; }
    .log > *, .ask > * { max-width: 44em; margin-inline: auto; }
    .turns:empty { display: none; }
    .asks { margin-block-start: 12px; }
    .asked { width: fit-content; max-width: 88%; margin-inline-start: auto; padding: 8px 14px; border-radius: var(--round); border-end-end-radius: 4px; background: var(--accent); color: var(--on-accent); white-space: pre-wrap; unicode-bidi: plaintext; }
    .reply { margin-block-start: 14px; }
    .reply > * + * { margin-block-start: 10px; }
    .quote { font-family: var(--serif); font-size: 1.0625em; white-space: pre-wrap; unicode-bidi: plaintext; text-align: start; }
    .answer { padding-inline-start: 14px; border-inline-start: 3px solid var(--accent); }
    .searched { padding: 8px 12px; border-radius: 8px; background: var(--raised); }
    .link { color: var(--accent); text-decoration: underline; text-underline-offset: .2em; text-decoration-thickness: 1px; min-height: 24px; }

    .chips { display: flex; flex-wrap: wrap; gap: 8px; }
    .chips > li { max-width: 100%; }
    .chips > li.open { flex-basis: 100%; }
    .chip { display: flex; width: fit-content; max-width: 100%; border: 1px solid var(--edge); border-radius: 10px; font-size: .875em; }
    .chip:hover { border-color: var(--accent); }
    .chip a { display: flex; align-items: center; gap: 7px; padding: 4px; padding-inline-start: 6px; color: var(--ink); text-decoration: none; border-radius: 9px; }
    .chip a:hover .path { text-decoration: underline; }
    .path { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .chip button { display: grid; place-items: center; width: 30px; min-height: 30px; color: var(--soft); border-radius: 9px; }
    .chip svg { width: 13px; height: 13px; }
    .chip [aria-expanded="true"] svg { rotate: 180deg; }
    .number { flex: none; display: inline-block; min-width: 1.5em; height: 1.5em; padding-inline: .3em; border-radius: .45em; background: var(--raised); color: var(--accent); font: 600 .8125em/1.5 system-ui, sans-serif; text-align: center; text-decoration: none; vertical-align: .1em; margin-inline-start: .4em; }
    .chip .number { margin: 0; font-size: .9em; }
    a.number:hover { background: var(--accent); color: var(--on-accent); }
    .preview { margin-block-start: 8px; padding: 12px 14px; border-radius: 10px; background: var(--raised); }
    .preview > * + * { margin-block-start: 8px; }
    .preview > .act { margin-inline-start: -8px; }
    .preview .quote { font-size: .9375em; max-height: 15em; overflow: auto; }
    mark { background: var(--mark); border-radius: 2px; }

    .row { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; }
    .act { display: inline-flex; align-items: center; gap: 6px; min-height: 30px; padding: 2px 8px; font-size: .8125em; color: var(--soft); }
    .act:hover { background: var(--raised); color: var(--ink); }
    .act svg { width: 15px; height: 15px; }
    .reply > .row { margin-inline-start: -8px; }
    .solid { padding: 6px 14px; background: var(--accent); color: var(--on-accent); font-weight: 600; font-size: .875em; }
    .solid:disabled { background: none; border-color: var(--edge); color: var(--soft); }
    .asks { display: flex; flex-direction: column; align-items: start; gap: 8px; }
    .asks button { padding: 7px 14px; border-color: var(--edge); border-radius: var(--round); font-size: .9375em; }
    .asks button:hover { border-color: var(--accent); color: var(--accent); }
    .places li { margin-block-start: 6px; }
    .why { display: grid; gap: 10px; padding: 14px; border-radius: 10px; background: var(--raised); font-size: .875em; }
    .why legend { font-weight: 600; margin-block-end: 4px; }
    .why label { display: flex; align-items: center; gap: 8px; min-height: 28px; }
    input[type="radio"] { accent-color: var(--accent); }
    input[type="text"] { width: 100%; padding: 7px 10px; border: 1px solid var(--soft); border-radius: 8px; background: var(--back); }
    .problem { padding: 12px 14px; border-inline-start: 3px solid var(--wrong); border-radius: 4px; background: var(--raised); }
    .problem > * + * { margin-block-start: 8px; }

    .ask { padding: 12px 14px 10px; border-block-start: 1px solid var(--edge); }
    .box { display: flex; align-items: flex-end; gap: 6px; padding: 5px; border: 1px solid var(--soft); border-radius: var(--round); }
    .box:focus-within { border-color: var(--accent); outline: 1px solid var(--accent); }
    textarea, textarea:focus-visible { flex: 1; padding: 5px 9px; border: 0; outline: none; resize: none; background: none; field-sizing: content; max-height: 7.5em; }
    ::placeholder { color: var(--soft); opacity: 1; }
    .box button { display: grid; place-items: center; flex: none; width: 36px; height: 36px; border-radius: 10px; background: var(--accent); color: var(--on-accent); }
    .box [aria-disabled="true"] { background: var(--raised); color: var(--soft); }
    .foot { margin-block-start: 6px; text-align: center; font-size: .75em; }

    @media (max-width: 480px) {
      dialog.panel, :host([data-position="start"]) dialog.panel { inset: 0; width: 100vw; height: var(--seen, 100dvh); border: 0; border-radius: 0; }
    }
    @media (pointer: coarse) { .icon, .chip button, .act, .box button, .chip a { min-width: 40px; min-height: 40px; } }
    @media (prefers-reduced-motion: no-preference) {
      dialog[open] { animation: rise .18s ease-out; }
      .log { scroll-behavior: smooth; }
      .looking { animation: breathe 1.4s ease-in-out infinite; }
    }
    @keyframes rise { from { opacity: 0; translate: 0 12px; } }
    @keyframes breathe { 50% { opacity: .55; } }
    @media (forced-colors: active) { .bubble, .solid, .box button, .asked { border: 1px solid; } mark { background: Mark; color: MarkText; } }
    @media print { :host([data-bubble]) { display: none; } }
  `;

  const script = document.currentScript ?? [...document.scripts].find(({ src }) => /\/widget\.js([?#]|$)/.test(src));
  const sheet = new CSSStyleSheet(); // not markup: the page's `style-src` and trusted types have nothing against it
  sheet.replaceSync(STYLE);

  /** Something that the service, or the way to it, did not do. */
  class Problem extends Error {
    constructor(code, detail = "", { retryAfter = 0, requestId = "" } = {}) {
      super(detail);
      Object.assign(this, { code, retryAfter, requestId });
    }

    static from({ code, detail, request_id: requestId } = {}, retryAfter = 0) {
      return new Problem(code ?? "broken", detail, { retryAfter, requestId });
    }
  }

  /** The chat: a bubble that opens a dialog when it has `data-bubble`, else a part of the page. */
  class WhenceChat extends HTMLElement {
    #state = { opening: null, turns: [], isClosed: false }; // what the tab remembers
    #nodes = new Map(); // of the turns
    #words = STRINGS;
    #running = new AbortController();
    #isBusy = false;
    #isWelcome = false;
    #previews = 0;
    #base;
    #bubble;
    #panel;
    #log;
    #greeting;
    #turns;
    #box;
    #sendButton;
    #live;

    connectedCallback() {
      if (this.shadowRoot) return; // it was moved within the page
      for (const [name, value] of Object.entries(script?.dataset ?? {})) this.dataset[name] ??= value;
      const { host } = this.dataset;
      if (!host && !script) throw new Error(`${NAME}: say in data-host where the service is`);
      this.#base = new URL("./", host ? `${host}/` : script.src);
      this.#words = { ...STRINGS, ...this.#wordsOfThePage() };
      this.#recall();
      this.#build();
      if (!this.#isBubble) this.#welcome();
      else if ("open" in this.dataset && !this.#state.isClosed) this.open();
    }

    /** Open the chat; one that is a part of the page always is. */
    open() {
      if (!this.#isBubble || this.#panel.open) return;
      this.#panel.showModal();
      this.#bubble.setAttribute("aria-expanded", "true");
      this.#state.isClosed = false;
      this.#welcome();
      this.#log.scrollTop = this.#log.scrollHeight;
      this.#focus();
    }

    /** Close the chat; the conversation stays. */
    close() {
      if (this.#isBubble) this.#panel.close();
    }

    get #isBubble() {
      return "bubble" in this.dataset;
    }

    // What it is made of

    #build() {
      const { dir, lang } = this.dataset;
      const root = this.attachShadow({ mode: "open" });
      root.adoptedStyleSheets = [sheet];
      // The page's shortcuts must not see what is typed here: to them, the target is no text field.
      for (const kind of ["keydown", "keypress", "keyup"]) root.addEventListener(kind, (key) => key.stopPropagation());
      this.#greeting = make("div");
      this.#turns = make("ol", { class: "turns" });
      this.#log = make("div", { class: "log", role: "region", tabindex: 0, "aria-label": this.#say("conversation") },
        this.#greeting, this.#turns);
      // What is shown comes in parts and has buttons in it; what is read aloud comes once, as a whole.
      this.#live = make("div", { class: "unseen", role: "log", "aria-live": "polite" });
      const looks = { class: "panel", id: "panel", tabindex: -1, "aria-labelledby": "title", dir, lang };
      const parts = [this.#headerView(), this.#log, this.#formView(), this.#live];
      if (this.#isBubble) root.append(this.#bubbleView({ dir, lang }), this.#dialogView(looks, parts));
      else root.append((this.#panel = make("section", looks, ...parts)));
      for (const turn of this.#state.turns) this.#addView(turn);
    }

    #bubbleView(looks) {
      const told = { "aria-haspopup": "dialog", "aria-expanded": "false", "aria-controls": "panel", ...looks };
      this.#bubble = button("bubble", () => this.open(), { "aria-label": this.#title, ...told }, icon("chat"));
      return this.#bubble;
    }

    #dialogView(looks, parts) {
      const isOutside = ({ target }) => target === this.#panel;
      this.#panel = make("dialog", {
        ...looks,
        onpointerdown: (event) => isOutside(event) && this.close(),
        onclose: () => this.#closed(),
      }, ...parts);
      // The keyboard on a screen covers what is fixed to its lower edge.
      const fit = () => this.#panel.style.setProperty("--seen", `${visualViewport.height * visualViewport.scale}px`);
      globalThis.visualViewport?.addEventListener("resize", fit);
      return this.#panel;
    }

    #closed() {
      this.#bubble.setAttribute("aria-expanded", "false");
      this.#bubble.focus();
      this.#state.isClosed = true;
      this.#keep();
    }

    get #title() {
      return this.dataset.title || this.#say("title");
    }

    #headerView() {
      const tool = (name, picture, onclick) => {
        const words = this.#say(name);
        return button("icon", onclick, { "aria-label": words, title: words }, icon(picture));
      };
      return make("div", { class: "head" },
        make("h2", { id: "title", dir: "auto" }, this.#title),
        tool("newChat", "anew", () => this.#startAnew()),
        this.#isBubble && tool("close", "close", () => this.close()));
    }

    #formView() {
      const submit = (event) => {
        event.preventDefault();
        const question = this.#box.value.trim();
        if (this.#isBusy || question === "") return this.#box.focus();
        this.#box.value = "";
        return this.#ask(question);
      };
      const onkeydown = (event) => {
        // With 229 some browsers say that the key belongs to the composing of a character.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
        event.preventDefault();
        form.requestSubmit();
      };
      this.#box = make("textarea", {
        id: "question", rows: 1, maxlength: MAX_QUESTION, placeholder: this.#say("placeholder"), dir: "auto",
        autocomplete: "off", enterkeyhint: "send", onkeydown,
      });
      this.#sendButton = make("button", { "aria-label": this.#say("send") }, icon("send"));
      const form = make("form", { class: "ask", onsubmit: submit },
        make("label", { class: "unseen", for: "question" }, this.#say("question")),
        make("div", { class: "box" }, this.#box, this.#sendButton),
        make("p", { class: "foot small" }, this.#say("note")));
      return form;
    }

    #focus() {
      // Where fingers type, the keyboard would cover half of what there is to read.
      (matchMedia("(pointer: coarse)").matches ? this.#panel : this.#box).focus({ preventScroll: true });
    }

    // Words

    #wordsOfThePage() {
      try {
        const given = Object.entries(JSON.parse(this.dataset.strings || "{}"));
        return Object.fromEntries(given.filter(([name, words]) => name in STRINGS && typeof words === "string"));
      } catch (error) {
        console.error(`${NAME}: data-strings is no JSON object, so the words are English. ${error.message}`);
        return {};
      }
    }

    #say(name, filled = {}) {
      return this.#words[name].replace(/\{(\w+)\}/g, (whole, place) => filled[place] ?? whole);
    }

    /** Tell those who listen. */
    #announce(...words) {
      this.#live.replaceChildren(make("p", {}, words.filter(Boolean).join(" ")));
    }

    #announceReply({ reply, problem }) {
      if (problem) return this.#announce(this.#say(WORDS_OF[problem.code] ?? "broken"));
      const [first] = sourcesOf(reply);
      return this.#announce(
        reply.leans_on !== null && reply.searched_as && this.#say("searchedAs", { question: reply.searched_as }),
        reply.answer && `${this.#sureness(reply.confidence)}:`,
        reply.content,
        first && `${this.#placeOf(first.citation)}.`,
        reply.kind === "not_found" && reply.suggestions.length > 0 && this.#say("nearest"),
        reply.suggestions.map(({ text }) => text).join(", "),
      );
    }

    #sureness(confidence) {
      if (confidence >= 0.9) return this.#say("veryLikely");
      return this.#say(confidence >= 0.7 ? "likely" : "possibly");
    }

    #linesOf({ page, first_line: first, last_line: last }) {
      if (page !== null) return this.#say("page", { first: page });
      return this.#say(first === last ? "line" : "lines", { first, last });
    }

    #placeOf(citation) {
      return `${pathOf(citation).join(" › ")}, ${this.#linesOf(citation)}`;
    }

    // What the tab remembers

    get #drawer() {
      return `${NAME}-1 ${this.#base.href} ${this.id}`;
    }

    #recall() {
      try {
        this.#state = JSON.parse(sessionStorage.getItem(this.#drawer)) ?? this.#state;
      } catch {
        return; // the browser keeps nothing for this page
      }
      for (const turn of this.#state.turns) {
        if (!turn.reply?.isDone) Object.assign(turn, { reply: {}, problem: new Problem("interrupted") });
      }
    }

    #keep() {
      const turns = this.#state.turns.map(({ problem, ...turn }) => turn);
      const kept = JSON.stringify({ ...this.#state, turns }, (name, value) => (UNKEPT.has(name) ? undefined : value));
      try {
        sessionStorage.setItem(this.#drawer, kept);
      } catch {
        // Then the conversation lasts as long as this page.
      }
    }

    // The service

    /** @throws {Problem} for any status from 300 on, and when there is no way to the service. */
    async #send(path, { json, accept = "application/json", signal } = {}) {
      const headers = { Accept: accept };
      if (this.dataset.key) headers.Authorization = `Bearer ${this.dataset.key}`;
      if (json) headers["Content-Type"] = "application/json";
      // The origin is named whatever the page's own policy: the key is bound to it.
      const how = { headers, signal, credentials: "omit", referrerPolicy: "origin", cache: "no-store" };
      if (json) Object.assign(how, { method: "POST", body: JSON.stringify(json) });
      let response;
      try {
        response = await fetch(new URL(path, this.#base), how);
      } catch {
        signal?.throwIfAborted();
        throw await this.#unreachable();
      }
      if (response.ok) return response;
      const said = await response.json().catch(() => ({}));
      throw Problem.from(said, Number(response.headers.get("Retry-After")) || 0);
    }

    /** Tell a service that is away from one that refuses this page: its script it shows to every page. */
    async #unreachable() {
      try {
        await fetch(new URL("widget.js", this.#base), { method: "HEAD", credentials: "omit", cache: "no-store" });
      } catch {
        return new Problem("offline");
      }
      return new Problem("origin_refused", location.origin);
    }

    async #welcome() {
      if (this.#isWelcome) return;
      this.#isWelcome = true;
      try {
        this.#state.opening ??= await (await this.#send("v1/chat/suggestions")).json();
        this.#keep();
      } catch (error) {
        this.#isWelcome = false;
        const again = () => {
          this.#focus();
          this.#welcome();
        };
        this.#greeting.replaceChildren(this.#problemView(asProblem(error), again));
        return;
      }
      const { greeting, questions } = this.#state.opening;
      this.#greeting.replaceChildren(make("p", { dir: "auto" }, greeting), this.#asksView(questions));
    }

    #ask(question) {
      const { turns } = this.#state;
      for (const old of turns.splice(0, turns.length + 1 - MAX_TURNS)) this.#nodes.get(old).remove();
      const turn = { question, standalone: false };
      turns.push(turn);
      this.#addView(turn);
      return this.#reply(turn);
    }

    /** Return the conversation up to a turn, as much of it as the service takes. */
    #messages(turn) {
      const { turns } = this.#state;
      const before = turns.slice(0, turns.indexOf(turn)).filter(({ reply }) => reply.isDone).slice(1 - MAX_TURNS);
      const said = before.flatMap(({ question, standalone, reply: { content, topic } }) => [
        { role: "user", content: question, standalone },
        { role: "assistant", content: [...content].slice(0, MAX_MESSAGE).join(""), topic },
      ]);
      return [...said, { role: "user", content: turn.question, standalone: turn.standalone }];
    }

    /** Get the reply to a turn, show it as it comes, and say it. */
    async #reply(turn) {
      this.#running.abort();
      const running = (this.#running = new AbortController());
      this.#setBusy(true);
      const reply = {};
      Object.assign(turn, { reply, problem: null, isRated: false });
      this.#keep();
      this.#show(turn);
      this.#focus();
      let problem = null;
      try {
        await this.#receive(turn, running);
      } catch (error) {
        problem = asProblem(running.signal.aborted ? running.signal.reason : error);
      }
      if (turn.reply !== reply || !this.#nodes.has(turn)) return; // it was asked anew, or a new chat begun
      turn.problem = problem;
      this.#show(turn);
      this.#keep();
      if (this.#running !== running) return; // another reply was wanted meanwhile
      this.#setBusy(false);
      this.#announceReply(turn);
    }

    async #receive(turn, running) {
      const { reply } = turn;
      let silence;
      const hear = () => {
        clearTimeout(silence);
        silence = setTimeout(() => running.abort(new Problem("offline")), SILENCE_MS);
      };
      hear();
      try {
        const json = { messages: this.#messages(turn), top_k: SOURCES };
        const response = await this.#send("v1/chat", { json, accept: "text/event-stream", signal: running.signal });
        for await (const [name, data] of eventsIn(response, hear)) {
          if (running.signal.aborted) break;
          if (name === "problem") throw Problem.from(data);
          Object.assign(reply, data, { isDone: name === "done" });
          this.#show(turn);
        }
      } finally {
        clearTimeout(silence);
      }
      if (!reply.isDone) throw new Problem("offline");
    }

    #setBusy(isBusy) {
      this.#isBusy = isBusy;
      this.#sendButton.setAttribute("aria-disabled", String(isBusy));
      this.#turns.setAttribute("aria-busy", String(isBusy));
    }

    #startAnew() {
      this.#running.abort();
      this.#setBusy(false);
      this.#state.turns = [];
      this.#nodes.clear();
      this.#turns.replaceChildren();
      this.#keep();
      this.#announce(this.#say("newChat"));
      this.#focus();
    }

    // A turn

    #addView(turn) {
      const node = make("li", {},
        make("p", { class: "asked" }, unseen(this.#say("asked")), turn.question),
        make("div", { class: "reply" }));
      this.#nodes.set(turn, node);
      this.#turns.append(node);
      if (turn.reply) this.#show(turn);
    }

    #show(turn) {
      const node = this.#nodes.get(turn);
      node.lastChild.replaceChildren(...this.#replyView(turn).filter(Boolean));
      this.#log.scrollTop = node.offsetTop - 12;
    }

    #replyView(turn) {
      const { reply, problem } = turn;
      const { kind, content, suggestions = [], handoff } = reply;
      const isFound = kind === "answer";
      const questions = kind === "not_found" ? [] : suggestions.map(({ text }) => text);
      return [
        typeof reply.leans_on === "number" && this.#searchedView(turn),
        !kind && !problem && make("p", { class: "looking small" }, this.#say("looking")),
        isFound && make("p", { class: "small" }, this.#sureness(reply.confidence)),
        isFound ? this.#answerView(reply) : kind && make("p", { dir: "auto" }, content),
        ...(isFound && reply.passages ? this.#sourcesView(reply) : []),
        kind === "not_found" && suggestions.length > 0 && this.#placesView(suggestions),
        questions.length > 0 && this.#asksView(questions),
        handoff && make("p", {}, this.#link(handoff.url, {}, make("bdi", {}, handoff.label))),
        reply.isDone && "passages" in reply && this.#actionsView(turn),
        problem && this.#problemView(problem, () => this.#reply(turn)),
      ];
    }

    #searchedView(turn) {
      const [before, after] = this.#words.searchedAs.split("{question}");
      const asWritten = () => {
        turn.standalone = true;
        this.#reply(turn);
      };
      return make("p", { class: "searched small" },
        before, make("bdi", {}, `“${turn.reply.searched_as}”`), after ?? "", " ",
        button("link", asWritten, {}, this.#say("standalone")));
    }

    #answerView({ answer }) {
      const chip = this.#link(this.#sourceOf(answer.citation), { class: "number" },
        unseen(this.#say("source", { number: 1 })), "1", unseen(this.#say("newTab")));
      return make("blockquote", { class: "quote answer", dir: "auto" }, flowing(answer.text), chip);
    }

    /** Show the source of an answer, and what else is near the question. */
    #sourcesView(reply) {
      const [source, ...others] = sourcesOf(reply).map((each, place) => this.#chipView(each, place + 1));
      const list = (...chips) => make("ul", { class: "chips" }, ...chips);
      if (others.length === 0) return [list(source)];
      return [list(source), make("p", { class: "small" }, this.#say("seeAlso")), list(...others)];
    }

    #chipView(source, number) {
      const { citation } = source;
      const id = `preview-${(this.#previews += 1)}`;
      const preview = make("div", { class: "preview", id, hidden: true });
      const toggle = () => {
        preview.hidden = !preview.hidden;
        more.setAttribute("aria-expanded", String(!preview.hidden));
        item.classList.toggle("open", !preview.hidden);
        if (!preview.hasChildNodes()) preview.append(...this.#previewView(source));
        if (!preview.hidden) preview.scrollIntoView({ block: "nearest" });
      };
      const told = { "aria-label": this.#say("preview", { number }), "aria-expanded": "false", "aria-controls": id };
      const more = button("", toggle, told, icon("more"));
      const link = this.#link(this.#sourceOf(citation), {}, unseen(this.#say("source", { number })),
        make("span", { class: "number", "aria-hidden": "true" }, String(number)),
        make("span", { class: "path" }, ...pathView(citation)), unseen(this.#say("newTab")));
      const item = make("li", {}, make("div", { class: "chip" }, link, more), preview);
      return item;
    }

    #previewView({ text, highlights, citation }) {
      return [
        make("p", { class: "small" }, ...pathView(citation), ` · ${this.#linesOf(citation)}`),
        make("blockquote", { class: "quote", dir: "auto", tabindex: 0 }, ...marked(text, highlights)),
        this.#copyView(citation),
      ];
    }

    #placesView(suggestions) {
      const places = suggestions.map(({ text, title, url }) => make("li", {},
        this.#link(url && this.#withKey(url), {}, make("bdi", {}, text), unseen(this.#say("newTab"))),
        title && title !== text && make("span", { class: "small" }, " · ", make("bdi", {}, title))));
      return make("div", {}, make("p", {}, this.#say("nearest")), make("ul", { class: "places" }, ...places));
    }

    #asksView(questions) {
      const ask = (question) => {
        if (!this.#isBusy) this.#ask(question);
      };
      return make("ul", { class: "asks" }, ...questions.map((question) =>
        make("li", {}, button("", () => ask(question), { dir: "auto" }, question))));
    }

    #problemView(problem, retry) {
      const again = button("solid", retry, {}, this.#say("retry"));
      const wait = (seconds) => {
        again.disabled = seconds > 0;
        again.textContent = seconds > 0 ? this.#say("retryIn", { seconds }) : this.#say("retry");
        if (seconds > 0) setTimeout(wait, 1000, seconds - 1);
      };
      wait(problem.retryAfter);
      const told = [problem.message, problem.requestId].filter(Boolean).join(" · ");
      return make("div", { class: "problem" },
        make("p", {}, this.#say(WORDS_OF[problem.code] ?? "broken")),
        told !== "" && make("p", { class: "small", dir: "auto" }, told),
        again);
    }

    // What can be done with an answer

    #actionsView(turn) {
      const { answer } = turn.reply;
      return make("div", { class: "row" }, answer && this.#copyView(answer.citation), this.#thumbsView(turn));
    }

    #copyView(citation) {
      const words = this.#say("copy");
      const label = make("span", {}, words);
      const copy = async () => {
        label.textContent = this.#say((await copied(this.#quotation(citation), made)) ? "copied" : "notCopied");
        this.#announce(label.textContent);
        setTimeout(() => (label.textContent = words), 2000);
      };
      const made = button("act", copy, {}, icon("copy"), label);
      return made;
    }

    /** Return a quote with its place and address, as it is pasted into a text; the key does not go with it. */
    #quotation(citation) {
      const address = this.#href(digested(citation)) ?? "";
      return `“${citation.quote}”\n— ${this.#placeOf(citation)} (${citation.document.id})\n${address}\n`;
    }

    #thumbsView(turn) {
      const place = make("span", { class: "row" });
      const settle = (words) => {
        place.replaceChildren(make("span", { class: "small", tabindex: -1 }, words));
        place.firstChild.focus({ preventScroll: true });
        this.#announce(words);
      };
      const rate = async (rating, reason) => {
        try {
          await this.#send("v1/feedback", { json: report(turn.reply, rating, reason) });
        } catch (error) {
          const problem = asProblem(error);
          settle(`${this.#say("notKept")} ${this.#say(WORDS_OF[problem.code] ?? "broken")}`);
          return;
        }
        turn.isRated = true;
        this.#keep();
        settle(this.#say("thanks"));
      };
      const thumb = (name, picture, onclick) => {
        const words = this.#say(name);
        return button("act", onclick, { "aria-label": words, title: words }, icon(picture));
      };
      const thumbs = [
        thumb("helpful", "up", () => rate("up")),
        thumb("unhelpful", "down", () => {
          const form = this.#whyView(turn.reply, (reason) => {
            form.remove();
            place.hidden = false;
            if (reason === null) return thumbs[1].focus();
            return rate("down", reason);
          });
          place.hidden = true;
          place.parentNode.after(form);
          form.querySelector("input").focus();
        }),
      ];
      place.append(...(turn.isRated ? [make("span", { class: "small" }, this.#say("thanks"))] : thumbs));
      return place;
    }

    /** Ask what was wrong with a reply; `done` is called with the reason, which may be empty, or with null. */
    #whyView({ kind }, done) {
      const reasons = kind === "answer" ? ["offTopic", "incomplete", "outdated"] : ["missed", "lacking"];
      const choices = reasons.map((name) => make("label", {},
        make("input", { type: "radio", name: "why", value: this.#say(name) }), this.#say(name)));
      const placeholder = this.#say("ownWords");
      const looks = { type: "text", "aria-label": placeholder, placeholder, dir: "auto", autocomplete: "off" };
      const words = make("input", looks);
      const onsubmit = (event) => {
        event.preventDefault();
        const reason = [new FormData(form).get("why"), words.value.trim()].filter(Boolean).join(": ");
        done([...reason].slice(0, MAX_REASON).join(""));
      };
      const form = make("form", { class: "why", onsubmit },
        make("fieldset", {}, make("legend", {}, this.#say("why")), ...choices), words,
        make("div", { class: "row" }, make("button", { class: "solid" }, this.#say("send")),
          button("act", () => done(null), {}, this.#say("cancel"))));
      return form;
    }

    // Addresses

    /** Return an address that may become a link, else null. What begins with a slash is below the service's own. */
    #href(url) {
      const whole = url.startsWith("/") ? `${this.#base.href.slice(0, -1)}${url}` : url;
      const parsed = URL.canParse(whole) ? new URL(whole) : null;
      return parsed && LINKED.has(parsed.protocol) ? parsed.href : null;
    }

    /** Hand the key over to our own source page, behind the `#`, where no server sees it. */
    #withKey(url) {
      const { key = "" } = this.dataset;
      return url.startsWith("/") && key.startsWith(PUBLIC_KEY) ? `${url}#key=${encodeURIComponent(key)}` : url;
    }

    #sourceOf(citation) {
      return this.#withKey(digested(citation));
    }

    /** Make a link in a new tab, or just words where the address is none of those that may be followed. */
    #link(url, attributes, ...words) {
      const href = url && this.#href(url);
      if (!href) return make("span", attributes, ...words);
      return make("a", { href, target: "_blank", rel: "noopener noreferrer", ...attributes }, ...words);
    }
  }

  /** Make an element; a function is a listener (`onclick`), and null, undefined and false are left out. */
  function make(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child || child === ""));
    return made;
  }

  function button(looks, onclick, attributes, ...children) {
    return make("button", { type: "button", class: looks || null, onclick, ...attributes }, ...children);
  }

  function unseen(words) {
    return make("span", { class: "unseen" }, ` ${words} `);
  }

  function icon(name) {
    const picture = document.createElementNS(SVG, "svg");
    const path = document.createElementNS(SVG, "path");
    picture.setAttribute("viewBox", "0 0 16 16");
    picture.setAttribute("aria-hidden", "true");
    path.setAttribute("d", ICONS[name]);
    picture.append(path);
    return picture;
  }

  /** Yield the events of a response, each with its name and data; `hear` is called whenever something comes. */
  async function* eventsIn(response, hear) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ done: true })); // what is missing then is noticed
      if (done) return;
      hear();
      const blocks = `${rest}${value}`.split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/, 2)));
        if (fields.event) yield [fields.event, JSON.parse(fields.data)]; // others are comments
      }
    }
  }

  function asProblem(error) {
    if (error instanceof Problem) return error;
    if (error.name === "AbortError") return new Problem("interrupted");
    reportError(error); // a mistake of ours
    return new Problem("broken", error.message);
  }

  /** Return the passages of an answer. The first is the one that it is taken from, and leads to its very words. */
  function sourcesOf({ answer, passages = [] }) {
    if (!answer) return [];
    const { document: { id }, start, end } = answer.citation;
    const source = passages.find(({ citation }) =>
      citation.document.id === id && citation.start <= start && end <= citation.end);
    const first = { text: answer.text, highlights: [], ...source, citation: answer.citation };
    return [first, ...passages.filter((passage) => passage !== source)];
  }

  /** Return the title of a cited document, and the headings below it. */
  function pathOf({ document: { title }, headings }) {
    return [title, ...headings.filter((heading) => heading !== title)];
  }

  function pathView(citation) {
    return pathOf(citation).flatMap((heading, place) => [place > 0 && " › ", make("bdi", {}, heading)]);
  }

  /** Return the address of a citation; our own page is told of what bytes it is, to say so if they have changed. */
  function digested({ url, document: { sha256 } }) {
    return url.startsWith("/") ? `${url}&sha256=${sha256.slice(0, TOLD)}` : url;
  }

  /** Return what a thumb sends: the quote by its place, and no text of a document. */
  function report({ searched_as: question, answer, passages, kind, generation }, rating, reason) {
    const { document: { id }, start, end } = (answer ?? passages[0])?.citation ?? { document: {} };
    return {
      question, rating, generation, answered: kind === "answer",
      ...(reason ? { reason } : {}), ...(id ? { citation: { document: id, start, end } } : {}),
    };
  }

  /** Let prose that was wrapped at some width flow: its line breaks become spaces, one for one. */
  function flowing(text) {
    return text.split("\n").reduce((flowed, line, number, lines) => {
      const before = lines[number - 1];
      const wasFull = before.length >= WRAPPED_FROM && !before.endsWith("|");
      return `${flowed}${wasFull && line !== "" && !STARTS_ANEW.test(line) ? " " : "\n"}${line}`;
    });
  }

  /** Return a text with its highlights marked; their positions count code points. */
  function marked(text, highlights) {
    const points = [...flowing(text)];
    const part = (start, end) => points.slice(start, end).join("");
    let done = 0;
    const pieces = highlights.flatMap(({ start, end }) => {
      const before = part(done, start);
      done = end;
      return [before, make("mark", {}, part(start, end))];
    });
    return [...pieces, part(done)];
  }

  /** Put a text on the clipboard; false when the browser does not allow it. */
  async function copied(text, beside) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // There is no clipboard object off https and localhost.
    }
    const area = make("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    beside.after(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    beside.focus({ preventScroll: true });
    return isCopied;
  }

  function addBubble() {
    if (document.querySelector(NAME) || "inline" in (script?.dataset ?? {})) return;
    const chat = document.createElement(NAME);
    Object.assign(chat.dataset, script?.dataset, { bubble: "" });
    document.body.append(chat);
  }

  if (!customElements.get(NAME)) customElements.define(NAME, WhenceChat); // a page may well include it twice
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", addBubble, { once: true });
  else addBubble();
})();
