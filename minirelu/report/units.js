// The table of units. Whatever comes from the corpus goes in through textContent: it is text.

(() => {
  const data = JSON.parse(document.getElementById("unit-data").textContent);
  const ROWS = 25; // of the table at a time
  const BEFORE = 24, AFTER = 12; // tokens shown around the one that fires
  const NO_KIND = "none";
  const state = { layer: 0, sort: "tokens_on", down: true, query: "", kind: "", page: 0 };

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
  const tokenElement = (token) => token < 0
    ? make("em", {}, "start") // of a sequence
    : make("code", { class: "token" }, visible(data.vocabulary[token]));
  const listed = (tokens) => tokens.flatMap((token) => [tokenElement(token), " "]);
  const firsts = (pairs) => pairs.filter((_, at) => at % 2 === 0);

  // Which units to show

  // Names of the kinds that a unit is of; without its weights, nothing is known of it.
  function kindsOf(layer, i) {
    if (!layer.kinds) return [];
    return data.specificity.kinds.filter((_, kind) => (layer.kinds[i] >> kind) & 1);
  }

  function isOf(layer, i, kind) {
    if (kind === "") return true;
    return kind === NO_KIND ? layer.kinds[i] === 0 : ((layer.kinds[i] >> Number(kind)) & 1) === 1;
  }

  // Places in the layer's lists whose unit is of the kind chosen, and fits the search: its number,
  // or the text of a token that it fires on.
  function matching(layer, query) {
    const all = layer.units.map((_, i) => i).filter((i) => isOf(layer, i, state.kind));
    if (!query.trim()) return all;
    if (/^\s*\d+\s*$/.test(query)) return all.filter((i) => layer.units[i] === Number(query));
    if (!layer.tokens) return [];
    const quoted = /^"(.+)"$/s.exec(query);
    const wanted = invisible(quoted ? quoted[1] : query).toLowerCase();
    const hits = data.vocabulary.map((text) => text.toLowerCase().includes(wanted));
    return all.filter((i) =>
      [...firsts(layer.special[i]), ...firsts(layer.tokens[i])].some((token) => hits[token]));
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

  // The choice of kinds, with the number of the layer's units that are of each.
  function showKinds() {
    const layer = data.layers[state.layer];
    if (!layer.kinds) return find("kind").parentElement.remove();
    const names = [...data.specificity.kinds.entries(), [NO_KIND, "none of these"]];
    const option = (value, name) => make("option", { value },
      `${name} (${number(layer.units.filter((_, i) => isOf(layer, i, String(value))).length)})`);
    find("kind").replaceChildren(option("", "all"), ...names.map((each) => option(...each)));
    find("kind").value = state.kind;
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
    for (const kind of kindsOf(layer, i)) tokens.append(make("span", { class: "kind" }, kind), " ");
    tokens.append(...listed(firsts(layer.special?.[i] ?? [])));
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
    if (!layer.tokens?.[i].length) return parts;
    parts.splice(2, 0, ...kindTold(layer, i));
    if (layer.special[i].length) {
      parts.push(make("h4", {}, "Characteristic tokens"), tokenTable(layer, i, layer.special[i]));
    }
    parts.push(make("h4", {}, "Tokens it fires on most"), tokenTable(layer, i, layer.tokens[i]));
    parts.push(make("p", {}, `Effective number of tokens: ${layer.effective[i]}; ` +
      `of the whole probe: ${data.specificity.effective}.`));
    parts.push(make("h4", {}, "What its firing tells of"), informationTable(layer, i),
      make("p", {}, `At most ${entropy(layer.tokens_on[i] / data.n_tokens).toFixed(3)} nats can ` +
        "be told: the entropy of its being on or off."));
    parts.push(make("h4", {}, "What it writes"),
      make("p", {}, "Raises ", ...listed(layer.raised[i])),
      make("p", {}, "Lowers ", ...listed(layer.lowered[i])));
    parts.push(make("h4", {}, "Where its activation is largest"));
    const places = layer.contexts[i];
    const list = make("ol", { class: "contexts" });
    for (let at = 0; at < places.length; at += 2) {
      list.append(contextItem(places[at], places[at + 1], places[1]));
    }
    parts.push(list);
    return parts;
  }

  // Of which kinds the unit is, what it detects, and what it does with its trigger.
  function kindTold(layer, i) {
    const names = kindsOf(layer, i);
    if (!names.length) return [];
    const told = make("p", {}, ...names.flatMap((name) => [
      make("span", { class: "kind" }, name), " ",
    ]));
    layer.triggers[i].forEach((gram, at) => {
      told.append(at ? "or " : "on ", ...listed(gram));
    });
    if (!names.includes("token detector")) return [told];
    const back = {
      1: "It writes its trigger back: raises it more than 99 % of all tokens.",
      0: "It neither writes its trigger back nor removes it.",
      "-1": "It removes its trigger: lowers it more than 99 % of all tokens.",
    };
    return [told, make("p", {}, back[layer.back[i]])];
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

  function simpleTable(names, rows) {
    const table = make("table", { class: "firings" },
      make("thead", {}, make("tr", {}, ...names.map((n) => make("th", { scope: "col" }, n)))));
    const cells = (row) => row.map((cell) => make("td", {}, cell));
    table.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
    return table;
  }

  // How many times as often as in general the unit fires on a token: its lift.
  const times = (x) => `${x >= 10 ? Math.round(x).toLocaleString("en") : x.toFixed(1)} ×`;

  function tokenTable(layer, i, pairs) {
    const on = layer.tokens_on[i];
    const rows = firsts(pairs).map((token, at) => {
      const n = pairs[2 * at + 1];
      const share = n / occurrences[token];
      return [
        tokenElement(token), `${number(n)} of ${number(occurrences[token])}`, percent(share),
        times((share * data.n_tokens) / Math.max(n, on)), percent(n / Math.max(n, on)),
      ];
    });
    const names = ["token", "fires at", "rate", "lift", "of its firings"];
    return simpleTable(names, rows);
  }

  function entropy(p) {
    return p <= 0 || p >= 1 ? 0 : -p * Math.log(p) - (1 - p) * Math.log1p(-p);
  }

  function informationTable(layer, i) {
    const nats = (values, at) => (values[i][at] / 1000).toFixed(3);
    const rows = Object.values(data.specificity.variables).map((what, at) =>
      [what, nats(layer.information, at), nats(layer.shuffled, at)]);
    return simpleTable(["variable", "nats", "shuffled"], rows);
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
    showKinds();
    show();
  });
  find("kind").addEventListener("change", (event) => {
    Object.assign(state, { kind: event.target.value, page: 0 });
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
  showKinds();
  show();
  find("app").hidden = false;
})();
