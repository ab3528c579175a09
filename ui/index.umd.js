// Keyboard shortcuts for review, in the sample modal and in the panel's queue, the reviewer's name, the slider of a
// threshold, and a player for audio samples. No build step, no packages; the rest of the plugin works without this file.
(function () {
  "use strict";

  const ops = window.__foo__;
  const plugins = window.__fop__;
  const React = window.React;
  const OPERATOR = "@multimem/audit/";

  // --- hotkeys -------------------------------------------------------------------------------------------------------

  // Keys that are not shortcuts of the App (those include ?, c, j, p, r, x, z). They press the panel's buttons, which
  // carry their row, the decision that they show and their token; in the modal, where there is none, they call operators.
  const KEYS = {
    1: { label: "keep", operator: "decide", params: { decision: "keep" } },
    2: { label: "remove", operator: "decide", params: { decision: "remove" } },
    3: { label: "relabel with the suggestion", operator: "decide", params: { decision: "relabel" } },
    4: { label: "skip", operator: "decide", params: { decision: "skip" } },
    5: { label: "unsure", operator: "decide", params: { decision: "unsure" } },
    u: { label: "undo last decision", operator: "undo_decision", params: {} },
    y: { label: "redo what was undone last", operator: "redo_decision", params: {} },
    d: { label: "show or hide the last decisions, in the queue" }, // a button alone
    n: { label: "next finding", operator: "open_next", params: { step: 1 } },
    b: { label: "previous finding", operator: "open_next", params: { step: -1 } },
  };
  const ARROWS = { ArrowRight: "n", ArrowLeft: "b" }; // in the panel alone: in the modal they are keys of the App
  const EDIT = "e"; // Enter saves what is typed, Escape leaves the field
  const HELP = "h";
  const BETWEEN_MS = 250; // a held key or a double press is one decision
  const ANSWER_MS = 30000; // keys are ignored while the server works on the previous one, up to this long
  const OPENS_MS = 1000; // time for the next sample to open after the answer
  const TYPED_MS = 300; // time for what was typed to reach the panel's state, which a button sends
  let lastKeyTime = 0; // of the previous shortcut: the sample has been open since then
  let tokens = { dataset: null }; // operator -> token of its next request: the server does nothing without
  let decided = null; // the sample whose decision a key would have replaced, and the id of that decision: the next one does
  let pending = null; // what the previous shortcut was for, and until when the next one may take to be shown

  const QUEUE = '[data-cy="panel-content-audit_panel"]';
  const BESIDE = '[data-cy="panel-content-audit_sample"]'; // the panel beside the open sample
  const OVERLAY = "audit-hotkeys";
  // What else takes keys while it is open
  const OPEN = `[role=dialog]:not(#${OVERLAY}), [role=alertdialog], [role=menu], [role=listbox], ` +
    '[data-cy="operators-prompt-modal"], [data-cy="operators-browser"]';
  const TAKES_ARROWS = "[role=tab], [role=combobox], [role=slider], [role=radio], [role=separator], video, audio";
  const TAB = "[role=tab]"; // takes the arrows where the keyboard went to it; one that was clicked does not

  function typing(target) {
    const field = target && target.closest && target.closest("input, textarea, select, [contenteditable], [role=textbox]");
    return Boolean(field) && field.getAttribute("contenteditable") !== "false";
  }

  function modal() {
    return document.querySelector('[data-cy="modal"]');
  }

  function visible(selector) {
    return [...document.querySelectorAll(selector)].find((node) => node.getClientRects().length > 0);
  }

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
    if (typing(event.target) || typing(document.activeElement)) return;
    if (!modal() && (!visible(`${QUEUE} [data-audit-key]`) || visible(OPEN))) return;
    if (event.key === HELP) return toggleHelp();
    if (event.key === "Escape") return closeHelp();
    if (event.key === EDIT) return edit(event);
    if (modal()) onKeyInModal(event);
    else onKeyInQueue(event);
  }

  function actionOf(key) {
    return Object.prototype.hasOwnProperty.call(KEYS, key) && KEYS[key];
  }

  function onKeyInModal(event) {
    const action = actionOf(event.key);
    if (!action || event.timeStamp - lastKeyTime < BETWEEN_MS || waiting()) return;
    const seconds = lastKeyTime ? (event.timeStamp - lastKeyTime) / 1000 : 0; // 0: not known
    lastKeyTime = event.timeStamp;
    if (press(BESIDE, event.key)) return; // the button carries its row, and the decision that it shows
    if (!action.operator) return;
    const sample = openSample();
    const request = (pending = { shown: shown(), until: performance.now() + ANSWER_MS });
    const callback = (answer) => {
      const held = answer && answer.result && answer.result.held;
      decided = held ? { sample, id: held } : null;
      request.until = performance.now() + (held ? 0 : OPENS_MS); // nothing was recorded, and the sample stays open
      keepToken(action.operator, answer);
    };
    withToken(action.operator, (token) => {
      const seen = decided && decided.sample === sample ? decided.id : "";
      const reviewer = reviewerName();
      const params = Object.assign({ from_modal: true, seen, seconds, reviewer, token }, action.params);
      ops.executeOperator(OPERATOR + action.operator, params, { callback });
    });
  }

  function onKeyInQueue(event) {
    const isArrow = Object.prototype.hasOwnProperty.call(ARROWS, event.key);
    const taker = isArrow && event.target.closest(TAKES_ARROWS);
    const isClicked = taker && taker.matches(TAB) && chosen && taker.contains(chosen);
    if (isArrow && (event.shiftKey || (taker && !isClicked))) return;
    if (isClicked) event.stopPropagation(); // the App would go to the next tab
    const key = isArrow ? ARROWS[event.key] : event.key;
    if (!actionOf(key) || event.timeStamp - lastKeyTime < BETWEEN_MS || waiting()) return;
    lastKeyTime = event.timeStamp;
    press(QUEUE, key);
  }

  // Click the button that shows the key; whether there is one.
  function press(place, key) {
    const button = visible(`${place} button[data-audit-key="${key}"]`);
    if (!button || button.disabled) return false;
    pending = { shown: shown(), until: performance.now() + ANSWER_MS };
    button.click();
    return true;
  }

  // --- the new caption

  function place() {
    return modal() ? BESIDE : QUEUE;
  }

  function edit(event) {
    const within = `${place()} [data-audit-field=typed]`;
    const field = visible(`${within} textarea:not([aria-hidden]), ${within} input`);
    if (!field) return;
    event.preventDefault(); // the key is not typed
    lastTyped = event.timeStamp; // the cursor may go there
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  function onKeyInField(event) {
    const target = event.target;
    const field = target.closest && target.closest("[data-audit-field]");
    if (!field || event.isComposing) return;
    if (event.key !== "Escape" && (event.key !== "Enter" || event.shiftKey)) return;
    if (target.getAttribute("aria-expanded") === "true") return; // Enter takes the class that is marked in the list
    event.preventDefault();
    event.stopPropagation(); // Escape would close the modal
    if (event.key === "Escape") target.dataset.left = "true"; // of the reviewer's name: not saved
    target.blur();
    chosen = null;
    lastTyped = -Infinity;
    const saves = event.key === "Enter" && field.getAttribute("data-audit-field") === "typed";
    if (!saves || event.repeat || event.timeStamp - lastKeyTime < BETWEEN_MS || waiting()) return;
    lastKeyTime = event.timeStamp;
    const [where, before] = [place(), shown()];
    setTimeout(() => shown() === before && press(where, "Enter"), TYPED_MS);
  }

  // Each answer to a decision holds the token of the next one, so that only the first key asks for tokens.
  function withToken(operator, act) {
    const dataset = window.location.pathname;
    if (operator === "open_next") return act();
    if (tokens.dataset === dataset && tokens[operator]) return act(tokens[operator]);
    const callback = (answer) => {
      tokens = Object.assign({}, answer && answer.result, { dataset });
      act(tokens[operator]);
    };
    ops.executeOperator(OPERATOR + "review_tokens", {}, { callback });
  }

  function keepToken(operator, answer) {
    tokens[operator] = answer && answer.result && answer.result.token;
  }

  // A fast reviewer's next key must not decide on the same sample again: it is ignored until the next one is open, or the
  // panel is drawn anew.
  function waiting() {
    return pending !== null && performance.now() < pending.until && shown() === pending.shown;
  }

  function openSample() {
    return new URLSearchParams(window.location.search).get("id");
  }

  function shown() {
    const button = visible(`${place()} [data-audit-drawn]`);
    const drawn = button ? button.getAttribute("data-audit-drawn") : "";
    return modal() ? `${openSample()} ${drawn}` : drawn;
  }

  function element(tag, style, text) {
    const made = document.createElement(tag);
    Object.assign(made.style, style);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function closeHelp() {
    const open = document.getElementById(OVERLAY);
    if (open) open.remove();
    return Boolean(open);
  }

  function toggleHelp() {
    if (closeHelp()) return;
    const box = element("div", {
      position: "fixed", right: "24px", bottom: "24px", zIndex: 100000, padding: "16px 20px", borderRadius: "8px",
      background: "var(--fo-palette-background-level2, #1c1c1c)", color: "var(--fo-palette-text-primary, #fff)",
      font: "14px/1.7 system-ui, sans-serif", boxShadow: "0 4px 24px rgba(0,0,0,.5)",
    });
    box.id = OVERLAY;
    box.setAttribute("role", "dialog");
    box.setAttribute("aria-label", "Review by keyboard");
    box.appendChild(element("div", { fontWeight: "600", marginBottom: "6px" }, "Review by keyboard"));
    const rows = Object.entries(KEYS).map(([key, action]) => [key, action.label]);
    rows.push([EDIT, "edit the caption: Enter saves, Escape leaves"], [HELP, "show or hide this help"]);
    for (const [key, label] of rows) {
      const row = element("div", { display: "flex", gap: "12px" });
      row.appendChild(element("kbd", { minWidth: "18px", fontFamily: "monospace", fontWeight: "600", color: "#ff9950" }, key));
      row.appendChild(element("span", {}, label));
      box.appendChild(row);
    }
    document.body.appendChild(box);
  }

  if (ops && ops.executeOperator) {
    window.addEventListener("keydown", onKey, true); // the App keeps some keys, such as arrows, from later listeners
    window.addEventListener("keydown", onKeyInField, true);
  }

  // --- focus ---------------------------------------------------------------------------------------------------------

  // The App puts the cursor into the first field of whatever it draws: in the panels of a review, shortcuts would be
  // typed into the new caption. A field there is entered by a click on it, by Tab, or while somebody types.
  const PANELS = `${BESIDE}, ${QUEUE}`;
  const TYPING_MS = 3000; // a field that is drawn anew while somebody types gets the cursor back
  let chosen = null; // where the last click was
  let lastTyped = -Infinity; // when a key was pressed in a field, or Tab

  function onFocus(event) {
    const field = event.target;
    const isField = field.matches && field.matches("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea");
    if (!isField || !field.closest(PANELS) || event.timeStamp - lastTyped < TYPING_MS) return;
    if (field.closest("[data-audit-field=reviewer]")) return; // the name's field takes the cursor when it is asked for
    const place = chosen && chosen.closest && chosen.closest("label, .MuiFormControl-root, input, textarea");
    if (!place || !place.contains(field)) field.blur(); // a node contains itself
  }

  document.addEventListener("focusin", onFocus);
  document.addEventListener("pointerdown", (event) => {
    chosen = event.target;
    lastTyped = -Infinity; // whoever clicks has stopped typing
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab") chosen = null; // the keyboard chooses from here on
    if (event.key === "Tab" || typing(event.target)) lastTyped = event.timeStamp;
  }, true);

  // --- the reviewer's name -------------------------------------------------------------------------------------------

  // Asked once for each browser, which keeps it; the panels and forms send it with their state, the keys of the modal as a
  // parameter.
  const REVIEWER = "audit-reviewer"; // in the browser's storage, and the event that tells of a change in this page
  const MOST_NAME = 200; // characters
  let unstored = ""; // where the browser stores nothing

  // A name without halves of characters, such as of emoji: the server refuses them.
  function asName(text) {
    return Array.from(text.replace(/[\ud800-\udfff]/gu, "").trim()).slice(0, MOST_NAME).join("").trim();
  }

  // A name of characters that show nothing would be a button that nobody sees.
  function shownName(name) {
    return name.replace(/[\p{C}\p{Z}\u115f\u1160\u2800\u3164\uffa0]/gu, "") ? name : "(no name)";
  }

  function reviewerName() {
    try {
      return asName(localStorage.getItem(REVIEWER) || unstored);
    } catch {
      return unstored;
    }
  }

  function setReviewerName(name) {
    unstored = asName(name);
    try {
      localStorage.setItem(REVIEWER, unstored);
    } catch {
      // storage is switched off: the name is known until the page is left
    }
    window.dispatchEvent(new Event(REVIEWER));
  }

  function Reviewer({ data, onChange, path }) {
    const [name, setName] = React.useState(reviewerName);
    const [typed, setTyped] = React.useState(null); // null: not being changed
    React.useEffect(() => {
      const follow = () => setName(reviewerName());
      window.addEventListener(REVIEWER, follow);
      window.addEventListener("storage", follow); // another tab of the browser
      return () => {
        window.removeEventListener(REVIEWER, follow);
        window.removeEventListener("storage", follow);
      };
    }, []);
    React.useEffect(() => {
      if (name && data !== name) onChange(path, name);
    }, [name, data, path]);
    const save = (event) => {
      if (typed !== null && typed.trim() && !event.target.dataset.left) setReviewerName(typed);
      setTyped(null);
    };
    const line = {
      display: "flex", alignItems: "center", gap: 6, font: "13px system-ui, sans-serif", whiteSpace: "nowrap", minWidth: 0,
      color: "var(--fo-palette-text-secondary)",
    };
    const plain = { font: "inherit", color: "var(--fo-palette-text-primary)", background: "none" };
    if (name && typed === null) {
      const button = Object.assign({}, plain, {
        border: 0, padding: 0, cursor: "pointer", fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis", maxWidth: 140,
      });
      return React.createElement(
        "div", { style: line, "data-cy": "audit-reviewer" },
        "Reviewer:",
        React.createElement("button", {
          type: "button", style: button, title: `${shownName(name)}: click to change the name`, onClick: () => setTyped(name),
        }, shownName(name))
      );
    }
    const field = Object.assign({}, plain, {
      border: "1px solid var(--fo-palette-divider, #888)", borderRadius: 4, padding: "4px 6px", width: 130,
    });
    return React.createElement(
      "div", { style: line, "data-cy": "audit-reviewer", "data-audit-field": "reviewer" },
      "Reviewer:",
      React.createElement("input", {
        style: field, value: typed === null ? "" : typed, placeholder: "Your name", "aria-label": "Your name",
        autoFocus: Boolean(name), onBlur: save, onFocus: (event) => delete event.target.dataset.left,
        onChange: (event) => setTyped(event.target.value),
      })
    );
  }

  // --- thresholds ----------------------------------------------------------------------------------------------------

  // The panel hears of a value when the mouse lets go of it, and of each key, one at a time: of the values that are chosen
  // before it has answered, of the last one. The grid follows when the slider rests, since the App is busy with it.
  const REST_MS = 200;

  function Threshold({ schema }) {
    const { kind, run, spoken, low, high, step, threshold, on_slide: onSlide, on_rest: onRest } = schema.view;
    const send = ops.useTriggerPanelEvent();
    const field = React.useRef(null);
    const [value, setValue] = React.useState(threshold);
    const now = React.useRef({ isMoving: false, waiting: null, askedAt: -Infinity, timer: 0, isGone: false }).current;
    const isBusy = () => performance.now() - now.askedAt < ANSWER_MS;
    const ask = (chosen) => {
      now.waiting = null;
      now.askedAt = performance.now();
      send(onSlide, { kind, run, value: chosen }, false, () => {
        now.askedAt = -Infinity;
        if (now.isGone) return;
        if (now.waiting !== null) ask(now.waiting);
        else now.timer = setTimeout(() => send(onRest, { kind, run, value: chosen }), REST_MS);
      });
    };
    now.choose = (chosen) => {
      now.isMoving = false;
      clearTimeout(now.timer);
      if (isBusy()) now.waiting = chosen;
      else ask(chosen);
    };
    React.useEffect(() => {
      if (!now.isMoving && !isBusy()) setValue(threshold);
    }, [schema]);
    React.useEffect(() => {
      const input = field.current;
      // React's onChange is called all the way of a drag
      const onChosen = () => now.choose(Math.min(Number(input.value), high));
      now.isGone = false;
      input.addEventListener("change", onChosen);
      return () => {
        now.isGone = true;
        clearTimeout(now.timer);
        input.removeEventListener("change", onChosen);
      };
    }, [high]);
    const onMove = (event) => {
      now.isMoving = true;
      setValue(Number(event.target.value));
    };
    return React.createElement(
      "label",
      {
        style: { display: "flex", alignItems: "center", gap: 12, font: "14px system-ui, sans-serif", padding: "2px 0" },
        "data-cy": `audit-threshold-${kind}`,
      },
      "Threshold",
      React.createElement("input", {
        ref: field, type: "range", min: low, max: high + step / 2, step, value, onChange: onMove,
        "aria-label": spoken, "aria-valuetext": value.toFixed(2),
        style: { flex: 1, minWidth: 0, accentColor: "var(--fo-palette-primary-plainColor, #ff6d04)", cursor: "pointer" },
      }),
      React.createElement("span", { style: { fontVariantNumeric: "tabular-nums" } }, value.toFixed(2))
    );
  }

  if (plugins && React && plugins.PluginComponentType && plugins.PluginComponentType.Component !== undefined) {
    plugins.registerComponent({
      name: "AuditReviewer",
      label: "Reviewer",
      component: Reviewer,
      type: plugins.PluginComponentType.Component,
      activator: () => true,
    });
    plugins.registerComponent({
      name: "AuditThreshold",
      label: "Threshold",
      component: Threshold,
      type: plugins.PluginComponentType.Component,
      activator: () => true,
    });
  }

  // --- audio samples -------------------------------------------------------------------------------------------------

  const EXTENSIONS = ["wav", "mp3", "flac", "ogg", "m4a", "aac", "opus"];
  const BARS = 96;
  const MAX_BYTES = 20e6; // larger files are played without a waveform

  // The loudest value of each of the bars, relative to the loudest of all.
  async function peaks(url, signal) {
    const answer = await fetch(url, { signal });
    if (!answer.ok || Number(answer.headers.get("content-length")) > MAX_BYTES) return null;
    const context = new OfflineAudioContext(1, 1, 8000); // decoding at 8 kHz is enough for the waveform
    const samples = (await context.decodeAudioData(await answer.arrayBuffer())).getChannelData(0);
    const width = Math.max(1, Math.floor(samples.length / BARS));
    const levels = Array.from({ length: BARS }, (_, bar) => {
      let top = 0;
      for (let at = bar * width; at < Math.min(samples.length, (bar + 1) * width); at++) top = Math.max(top, Math.abs(samples[at]));
      return top;
    });
    const loudest = Math.max(...levels, 1e-6);
    return levels.map((value) => value / loudest);
  }

  function Waveform({ url, height }) {
    const [bars, setBars] = React.useState(null);
    React.useEffect(() => {
      const stop = new AbortController();
      peaks(url, stop.signal).then(setBars, () => setBars(null));
      return () => stop.abort();
    }, [url]);
    const drawn = (bars || Array(BARS).fill(0)).map((value, at) =>
      React.createElement("rect", {
        key: at, x: at, width: 0.7, y: 50 - Math.max(1, 46 * value), height: Math.max(2, 92 * value), fill: "#ff6d04",
      })
    );
    const box = { viewBox: `0 0 ${BARS} 100`, preserveAspectRatio: "none", width: "100%", height, "aria-hidden": true };
    return React.createElement("svg", box, drawn);
  }

  function AudioSample({ ctx }) {
    const grid = ctx.surface === "grid";
    const url = ctx.media && ctx.media.url;
    const name = String((ctx.media && ctx.media.path) || "").split(/[\\/]/).pop();
    const box = {
      display: "flex", flexDirection: "column", justifyContent: "center", gap: grid ? 4 : 16, width: "100%", height: "100%",
      padding: grid ? 6 : 32, boxSizing: "border-box", overflow: "hidden", background: "#1c1c1c", color: "#ccc",
    };
    const player = { onClick: (event) => event.stopPropagation(), style: { width: "100%", height: grid ? 28 : 54 } };
    return React.createElement(
      "div", { style: box, "data-cy": "audit-audio" },
      url && React.createElement(Waveform, { url, height: grid ? "45%" : "160px" }),
      url && React.createElement("audio", Object.assign({ src: url, controls: true, preload: "none" }, player)),
      React.createElement("div", { style: { font: "12px system-ui", overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" } }, name)
    );
  }

  if (plugins && React && plugins.PluginComponentType && plugins.PluginComponentType.SampleRenderer !== undefined) {
    plugins.registerComponent({
      name: "AuditAudioSample",
      label: "Audio",
      component: AudioSample,
      type: plugins.PluginComponentType.SampleRenderer,
      activator: () => true,
      sampleRendererOptions: { supports: { extensions: EXTENSIONS }, grid: { enabled: true, clickBehavior: "passthrough" } },
    });
  }
})();
