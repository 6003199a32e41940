// The table of units. Whatever comes from the corpus goes in through textContent: it is text.

(() => {
  const data = JSON.parse(document.getElementById("unit-data").textContent);
  const ROWS = 25; // of the table at a time
  const BEFORE = 24, AFTER = 12; // tokens shown around the one that fires
  const state = { layer: 0, sort: "tokens_on", down: true, query: "", page: 0 };

  const find = (id) => document.getElementById(`units-${id}`);
  const body = find("table").tBodies[0];
  const number = (n) => n.toLocaleString("en");
  const plural = (n, of, word) => `${number(n)} of ${number(of)} ${word}`;

  // How often the probe reads each token.
  const occurrences = new Array(data.vocabulary.length).fill(0);
  for (const token of data.probe) occurrences[token] += 1;

  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children); // strings become text nodes
    return element;
  }

  // White space made visible.
  const visible = (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "·");
  const invisible = (text) => text.replaceAll("↵", "\n").replaceAll("⇥", "\t").replaceAll("·", " ");
  const tokenElement = (token) =>
    make("code", { class: "token" }, visible(data.vocabulary[token]));

  // Which units to show

  // Places in the layer's lists whose unit fits the search: its number, or a token's text.
  function matching(layer, query) {
    const all = layer.units.map((_, i) => i);
    if (!query.trim()) return all;
    if (/^\s*\d+\s*$/.test(query)) return all.filter((i) => layer.units[i] === Number(query));
    if (!layer.tokens) return [];
    const quoted = /^"(.+)"$/s.exec(query);
    const wanted = invisible(quoted ? quoted[1] : query).toLowerCase();
    const hits = data.vocabulary.map((text) => text.toLowerCase().includes(wanted));
    return all.filter((i) => layer.tokens[i].some((token, at) => at % 2 === 0 && hits[token]));
  }

  function rows() {
    const layer = data.layers[state.layer];
    const by = layer[state.sort];
    const sign = state.down ? -1 : 1;
    return matching(layer, state.query).sort(
      (i, j) => sign * (by[i] - by[j]) || layer.units[i] - layer.units[j],
    );
  }

  // The table

  function show() {
    const layer = data.layers[state.layer];
    const found = rows();
    const pages = Math.max(1, Math.ceil(found.length / ROWS));
    state.page = Math.max(0, Math.min(state.page, pages - 1));
    const first = state.page * ROWS;
    const part = found.slice(first, first + ROWS);
    body.replaceChildren(...part.flatMap((i) => unitRow(layer, i)));
    find("table").style.setProperty("--layer", layer.color);
    for (const heading of find("table").querySelectorAll("th[data-sort]")) {
      const order = state.down ? "descending" : "ascending";
      heading.setAttribute("aria-sort", heading.dataset.sort === state.sort ? order : "none");
    }
    find("previous").setAttribute("aria-disabled", state.page === 0);
    find("next").setAttribute("aria-disabled", state.page === pages - 1);
    find("page").textContent = found.length
      ? `${number(first + 1)} to ${plural(first + part.length, found.length, "units")}` : "";
    find("status").textContent = summary(layer, found.length);
  }

  function summary(layer, found) {
    const shown = layer.units.length;
    const silent = layer.tokens_on.filter((n) => n === 0).length;
    const which = shown < layer.width ? ` Of its ${number(layer.width)}, ${number(shown)} are here.`
      : "";
    return `Layer ${state.layer}: ${plural(silent, shown, "units")} were silent on the probe's ` +
      `${number(data.n_tokens)} tokens at step ${number(data.step)}.${which}` +
      (state.query.trim() ? ` The search finds ${number(found)}.` : "");
  }

  function lastOn(layer, i) {
    if (layer.first[i] < 0) return "never";
    const silent = layer.since[i] < 0 ? "" : `, silent since ${number(layer.since[i])}`;
    return `step ${number(layer.last[i])}${silent}`;
  }

  function unitRow(layer, i) {
    const cell = (...children) => make("td", { role: "cell" }, ...children);
    const button = make("button", { type: "button", "aria-expanded": "false" },
      number(layer.units[i]));
    button.setAttribute("aria-label", `unit ${layer.units[i]}: details`);
    const tokens = cell();
    tokens.className = "tokens";
    (layer.tokens?.[i] ?? []).forEach((token, at) => {
      if (at % 2 === 0) tokens.append(tokenElement(token), " ");
    });
    const row = make("tr", { role: "row", class: "unit" },
      cell(button),
      cell(percent(layer.tokens_on[i] / data.n_tokens)),
      cell(percent(layer.sequences_on[i] / data.n_sequences)),
      cell(percent(layer.batches_on[i] / data.n_batches)),
      cell(lastOn(layer, i)),
      tokens,
    );
    const detail = make("tr", { role: "row", class: "detail", id: `unit-${layer.units[i]}` });
    detail.hidden = true;
    button.setAttribute("aria-controls", detail.id);
    row.addEventListener("click", () => {
      detail.hidden = !detail.hidden;
      button.setAttribute("aria-expanded", !detail.hidden);
      if (detail.hidden) return detail.replaceChildren();
      const place = make("td", { role: "cell", colspan: 6 });
      detail.append(place); // first, so that its width is known
      place.append(...details(layer, i, place.clientWidth));
    });
    return [row, detail];
  }

  // One unit

  function details(layer, i, width) {
    const drawn = Math.max(260, Math.min(680, width - 24));
    const parts = [
      make("h3", {}, `Layer ${state.layer}, unit ${layer.units[i]}`),
      make("p", {}, life(layer, i)),
      drawTimeline(data.drawn, layer.timeline[i], data.n_tokens, layer.color, drawn),
    ];
    if (layer.margin) {
      parts.splice(2, 0, make("p", {}, deaths(layer.deaths[i])));
      parts.push(drawMargin(
        data.margins_at, layer.margin[i], layer.deaths[i], data.step, layer.color, drawn,
      ));
    }
    if (layer.tokens?.[i].length) {
      parts.push(make("h4", {}, "Tokens it fires on most"), tokenTable(layer, i));
      parts.push(make("h4", {}, "Where its activation is largest"));
      const places = layer.contexts[i];
      const list = make("ol", { class: "contexts" });
      for (let at = 0; at < places.length; at += 2) {
        list.append(contextItem(places[at], places[at + 1], places[1]));
      }
      parts.push(list);
    }
    return parts;
  }

  function life(layer, i) {
    const probe = `the probe's ${number(data.n_tokens)} tokens`;
    if (layer.first[i] < 0) {
      return `Silent on ${probe} at every one of the ${number(data.probes)} probes.`;
    }
    const birth = `First on at step ${number(layer.first[i])}, `;
    if (layer.since[i] >= 0) {
      return `Silent on ${probe} since step ${number(layer.since[i])}. ${birth}` +
        `last on at step ${number(layer.last[i])}.`;
    }
    return `At step ${number(data.step)} it is on at ` +
      `${plural(layer.tokens_on[i], data.n_tokens, "tokens")}, in ` +
      `${plural(layer.sequences_on[i], data.n_sequences, "sequences")}, in ` +
      `${plural(layer.batches_on[i], data.n_batches, "batches")} of ` +
      `${number(data.batch_tokens)} tokens. ${birth}still on at the last probe.`;
  }

  function deaths(steps) {
    if (!steps.length) return "In the history of units it never died.";
    const told = [];
    for (let at = 0; at < steps.length; at += 3) {
      const [low, high, back] = steps.slice(at, at + 3).map(number);
      told.push(`${at ? "died again" : "It died"} between steps ${low} and ${high}` +
        (steps[at + 2] < 0 ? " and has not come back" : `, was on again by step ${back}`));
    }
    return `${told.join("; ")}.`;
  }

  function tokenTable(layer, i) {
    const names = ["token", "fires at", "of its occurrences", "of the unit's firings"];
    const table = make("table", { class: "firings" },
      make("thead", {}, make("tr", {}, ...names.map((n) => make("th", { scope: "col" }, n)))));
    const rows = make("tbody");
    const pairs = layer.tokens[i];
    for (let at = 0; at < pairs.length; at += 2) {
      const [token, n] = [pairs[at], pairs[at + 1]];
      rows.append(make("tr", {},
        make("td", {}, tokenElement(token)),
        make("td", {}, `${number(n)} of ${number(occurrences[token])}`),
        make("td", {}, percent(n / occurrences[token])),
        make("td", {}, percent(n / Math.max(n, layer.tokens_on[i]))),
      ));
    }
    table.append(rows);
    return table;
  }

  // A piece of the probe with the token at `place` marked, the stronger the deeper.
  function contextItem(place, activation, strongest) {
    const T = data.sequence_length;
    const start = place - (place % T); // of the sequence
    const text = (from, to) =>
      data.probe.slice(from, to).map((token) => data.vocabulary[token]).join("")
        .replaceAll("\n", "↵\n");
    const mark = make("mark", {}, visible(data.vocabulary[data.probe[place]]));
    const share = Math.round(100 * (0.25 + 0.75 * activation / strongest));
    mark.style.background = `rgb(255 176 0 / ${share}%)`;
    const [from, to] = [Math.max(start, place - BEFORE), Math.min(start + T, place + 1 + AFTER)];
    return make("li", {},
      `activation ${activation}, at position ${place % T} of sequence ${start / T}`,
      make("pre", {}, text(from, place), mark, text(place + 1, to)),
    );
  }

  // What can be operated

  const last = data.layers.length - 1;
  data.layers.forEach((_, l) => {
    const end = last === 0 ? "" : { 0: " (first)", [last]: " (last)" }[l] ?? "";
    find("layer").append(make("option", { value: l }, `layer ${l}${end}`));
  });
  find("layer").addEventListener("change", (event) => {
    Object.assign(state, { layer: Number(event.target.value), page: 0 });
    show();
  });
  find("search").addEventListener("input", (event) => {
    Object.assign(state, { query: event.target.value, page: 0 });
    show();
  });
  for (const heading of find("table").querySelectorAll("th[data-sort]")) {
    heading.firstElementChild.addEventListener("click", () => {
      const again = heading.dataset.sort === state.sort;
      const down = again ? !state.down : heading.dataset.first === "down";
      Object.assign(state, { sort: heading.dataset.sort, down, page: 0 });
      show();
    });
  }
  for (const [id, by] of [["previous", -1], ["next", 1]]) {
    find(id).addEventListener("click", () => {
      state.page += by; // show() keeps it in range
      show();
    });
  }
  show();
  find("app").hidden = false;
})();
