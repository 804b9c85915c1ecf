// What a reader of the page can look through: curves, attention, maps. The tables are there without this.
"use strict";
(() => {
    const figures = JSON.parse(document.getElementById("figures").textContent);
    const $ = (id) => document.getElementById(id);
    const SVG = "http://www.w3.org/2000/svg";

    /** An element with attributes and children; strings among these become text, never markup. */
    function make(name, attributes = {}, ...children) {
        const svg = ["svg", "g", "path", "line", "rect", "circle", "text", "title"].includes(name);
        const made = svg ? document.createElementNS(SVG, name) : document.createElement(name);
        for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
        made.append(...children);
        return made;
    }

    const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-4 ? x.toExponential(1).replace("e+", "e").replace(".0", "") : String(Number(x.toPrecision(3))));
    const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
    const decoded = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

    // ------------------------------------------------------------------------------------------------------------ charts

    /** Round numbers from low to high, about `count` of them. */
    function ticks(low, high, count) {
        const rough = (high - low) / count || 1;
        const power = 10 ** Math.floor(Math.log10(rough));
        const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough);
        const found = [];
        for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Math.abs(x) < step * 1e-6 ? 0 : x);
        return found;
    }

    const decades = (low, high) => {
        const found = [];
        for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
            for (const n of [1, 2, 5]) if (n * 10 ** power >= low && n * 10 ** power <= high) found.push(n * 10 ** power);
        return found.length > 6 ? found.filter((x) => Number.isInteger(Math.round(Math.log10(x) * 1e9) / 1e9)) : found;
    };

    /**
     * A figure of lines or dots. series: [{name, x, y, colour, dashed, thin, end, dots, sizes}]. options: title, along, log, square
     * (both axes the same range, with the line on which they are equal), from0.
     */
    function chart(series, options) {
        const caption = make("figcaption", {}, make("strong", {}, options.title));
        const svg = make("svg", { tabindex: 0, role: "group", "aria-label": `${options.title}: ${series.map((s) => s.name).join(", ")}. Left and right read the values.` });
        const readout = make("p", { class: "readout", "aria-live": "polite" });
        const figure = make("figure", { class: "chart" }, caption, svg, readout);
        const places = [...new Set(series.flatMap((s) => s.x))].sort((a, b) => a - b);
        let at = -1;
        let scale = null;

        function draw() {
            const width = svg.clientWidth || 320, height = svg.clientHeight || 200;
            const left = 46, right = series.some((s) => s.end) ? 22 : 8, top = 8, bottom = 34;
            const xs = places, ys = series.flatMap((s) => s.y).filter((y) => !options.log || y > 0);
            let [low, high] = [Math.min(...ys), Math.max(...ys)], [first, last] = [Math.min(...xs, options.from0 ? 0 : Infinity), Math.max(...xs)];
            if (options.square) [first, last] = [low, high] = [Math.min(first, low), Math.max(last, high)];
            if (options.unit) [first, last, low, high] = [0, 1, 0, 1];
            if (options.zero && !options.log) low = Math.min(0, low);
            if (high === low) [low, high] = options.log ? [low / 2, high * 2] : [low - (Math.abs(low) * 0.05 || 1), high + (Math.abs(high) * 0.05 || 1)];
            if (last === first) last = first + 1;
            const log = options.log ? Math.log10 : (y) => y;
            const px = (x) => left + ((x - first) / (last - first)) * (width - left - right);
            const py = (y) => top + (1 - (log(y) - log(low)) / (log(high) - log(low))) * (height - top - bottom);
            scale = { px, first, last, left, right, width, top, bottom, height };
            svg.replaceChildren();
            svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
            for (const y of options.log ? decades(low, high) : ticks(low, high, 4)) {
                svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }));
                svg.append(make("text", { x: left - 6, y: py(y) + 4, "text-anchor": "end" }, short(y)));
            }
            for (const x of ticks(first, last, Math.max(2, Math.floor(width / 90))))
                svg.append(make("text", { x: px(x), y: height - bottom + 16, "text-anchor": "middle" }, short(x)));
            svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
            svg.append(make("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, options.along));
            if (options.square || options.unit) svg.append(make("path", { class: "guide", d: `M${px(first)} ${py(first)} L${px(last)} ${py(last)}` }));
            for (const one of series) {
                const group = make("g", { class: one.colour, style: one.tint ? `color: ${one.tint}` : undefined });
                const seen = one.x.map((x, i) => [px(x), py(one.y[i]), i]).filter(([, , i]) => !options.log || one.y[i] > 0);
                if (!one.dots) {
                    const kind = [one.dashed ? "dashed" : "", one.thin ? "thin" : ""].join(" ");
                    group.append(make("path", { class: kind, d: seen.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") }));
                }
                for (const [x, y, i] of one.dots || seen.length < 12 ? seen : [])
                    group.append(make("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: one.sizes ? one.sizes[i] : one.dots ? 2.4 : 2.6, class: one.sizes ? "ring" : one.dots ? "faint" : "" }));
                if (one.end && seen.length) group.append(make("text", { class: "end", x: seen.at(-1)[0] + 5, y: seen.at(-1)[1] + 3 }, one.end));
                svg.append(group);
            }
            point();
        }

        /** The values at place number `at`, in words and by a line. */
        function point() {
            svg.querySelector(".cursor")?.remove();
            if (at < 0 || !scale || options.mute) return; // before it is drawn there is nothing to point at
            const x = places[at];
            svg.append(make("line", { class: "cursor", x1: scale.px(x), x2: scale.px(x), y1: scale.top, y2: scale.height - scale.bottom }));
            const said = series.map((s) => [s.name, s.y[s.x.indexOf(x)]]).filter(([, y]) => y !== undefined);
            readout.textContent = `${options.along} ${short(x)}: ` + said.map(([name, y]) => (series.length > 1 ? `${name} ${short(y)}` : short(y))).join(", ");
        }

        function move(to) {
            at = Math.max(0, Math.min(places.length - 1, to));
            point();
        }
        svg.addEventListener("pointermove", (event) => {
            if (!scale) return;
            const x = scale.first + ((event.offsetX - scale.left) / (scale.width - scale.left - scale.right)) * (scale.last - scale.first);
            move(places.reduce((best, place, i) => (Math.abs(place - x) < Math.abs(places[best] - x) ? i : best), 0));
        });
        svg.addEventListener("keydown", (event) => {
            const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 }[event.key];
            if (to === undefined) return;
            event.preventDefault();
            move(to);
        });
        const drawn = () => svg.isConnected && draw();
        queueMicrotask(drawn); // as soon as it is in the page
        new ResizeObserver(drawn).observe(svg);
        return figure;
    }

    // ---------------------------------------------------------------------------------------------------------- training

    const title = (name) => name.replaceAll("_", " ");
    const steps = figures.runs.flatMap((run) => run.steps.map((step) => ({ ...step, of: run, label: run.steps.length > 1 ? `${run.name}, ${step.name}` : run.name })));

    /** A run's first step, where it has two, is dashed. */
    const dashed = (step) => step.of.steps.length > 1 && step.name === step.of.steps[0].name;

    /** What each line is, once for all curves. */
    const legends = () => make("div", { class: "legends" }, ...steps.map((step) => {
        const key = make("path", { d: "M1 4 H17", class: dashed(step) ? "dashed" : "" });
        return make("span", {}, make("svg", { viewBox: "0 0 18 8", class: figures.colours[step.of.name], "aria-hidden": "true" }, key), step.label);
    }));

    /** A curve's places along the axis that is chosen. */
    function along(step, places) {
        const axis = chosen("axis");
        if (axis === "epochs" && step.perEpoch) return places.map((x) => x / step.perEpoch);
        const all = Object.values(step.losses).concat(Object.values(step.dev)).map(([x]) => x.at(-1));
        return axis === "share" ? places.map((x) => x / Math.max(...all)) : places;
    }
    const axisName = () => ({ steps: "step", epochs: "epoch", share: "share of the run" })[chosen("axis")];

    function training() {
        const host = $("curves");
        if (!host) return;
        const kinds = ["losses", "dev", "lr"].flatMap((kind) => [...new Set(steps.flatMap((step) => Object.keys(step[kind])))].map((name) => [kind, name]));
        host.replaceChildren(legends(), ...kinds.map(([kind, name]) => {
            const series = steps.filter((step) => step[kind][name]).map((step) => ({
                name: step.label, x: along(step, step[kind][name][0]), y: step[kind][name][1],
                colour: figures.colours[step.of.name], dashed: dashed(step),
            }));
            const named = { losses: `${title(name)} loss`, dev: `dev: ${title(name)}`, lr: title(name) }[kind];
            return chart(series, { title: named.replace("entropy loss", "entropy"), along: axisName(), log: kind === "losses" && chosen("scale") === "log", zero: kind === "losses", from0: true });
        }));
        layered();
    }

    function layered() {
        const select = $("layered");
        if (!select) return;
        const [run, step] = select.value.split(" ").map(Number);
        const own = figures.runs[run].steps[step];
        const terms = [...new Set(Object.keys(own.layers).map((name) => name.split(".")[0]))];
        $("layer-curves").replaceChildren(...terms.map((term) => {
            const names = Object.keys(own.layers).filter((name) => name.startsWith(`${term}.`));
            const series = names.map((name, i) => ({
                name: `layer ${name.split(".")[1]}`, end: name.split(".")[1], x: along(own, own.layers[name][0]), y: own.layers[name][1], thin: true,
                tint: `color-mix(in oklab, var(--${term === "attention" ? "orange" : "berry"}) ${Math.round(45 + (55 * (i + 1)) / names.length)}%, var(--paper))`,
            }));
            return chart(series, { title: `${title(term)} loss, a line a layer`, along: axisName(), log: chosen("scale") === "log", zero: true, from0: true });
        }));
    }

    document.querySelectorAll('input[name="axis"], input[name="scale"]').forEach((input) => input.addEventListener("change", training));
    $("layered")?.addEventListener("change", layered);
    training();

    // --------------------------------------------------------------------------------------------------------- attention

    const at = { lesson: 0, student: 0, sentence: 0, layer: 1, teacherLayer: 1, head: 0, teacherHead: 0, token: 1 }; // head 0: the mean
    const lesson = () => figures.lessons[at.lesson];
    const student = () => lesson().students[at.student];
    const tokens = () => lesson().sentences[at.sentence].tokens;

    /** (L, L) of one layer and head, or the mean over heads, of packed probabilities. */
    function attention(side, layer, head) {
        const bytes = decoded(side.attention[at.sentence]), L = tokens().length;
        const heads = head ? [head - 1] : [...Array(side.heads).keys()];
        const from = (h) => ((layer - 1) * side.heads + h) * L * L;
        return Array.from({ length: L }, (_, i) => Array.from({ length: L }, (_, j) => heads.reduce((sum, h) => sum + bytes[from(h) + i * L + j], 0) / heads.length / 255));
    }

    function options(select, choices, value) {
        select.replaceChildren(...choices.map(([own, text]) => make("option", { value: own }, text)));
        select.value = value;
        select.closest("label").hidden = choices.length < 2;
    }

    const learned = (m) => student().map[m - 1] ?? Math.round((m * lesson().layers) / student().layers);
    const range = (n) => Array.from({ length: n }, (_, i) => i + 1);
    const headName = (h) => (h ? `head ${h}` : "mean of the heads");

    /** Everything that is chosen, put within what there is, and shown. */
    function showAttention() {
        const [S, T] = [student(), lesson()];
        const between = (x, low, high) => Math.max(low, Math.min(high, x));
        at.layer = between(at.layer, 1, S.layers);
        at.teacherLayer = between(at.teacherLayer, 1, T.layers);
        at.sentence = between(at.sentence, 0, T.sentences.length - 1);
        at.token = between(at.token, 0, tokens().length - 1);
        at.head = between(at.head, 0, S.heads);
        at.teacherHead = S.heads === T.heads ? at.head : between(at.teacherHead, 0, T.heads);
        const text = (sentence) => sentence.tokens.slice(1, -1).join(" ").replaceAll(" ##", "").replace(" [SEP] ", " ||| ");
        options($("sentence"), T.sentences.map((s, i) => [i, `${text(s)} (${s.origin})`]), at.sentence);
        options($("layer"), range(S.layers).map((m) => [m, m]), at.layer);
        options($("teacher-layer"), range(T.layers).map((n) => [n, n === learned(at.layer) ? `${n} (learned from)` : n]), at.teacherLayer);
        const heads = (count) => [0, ...range(count)].map((h) => [h, h ? h : "mean"]);
        options($("head"), heads(S.heads), at.head);
        options($("teacher-head"), heads(T.heads), at.teacherHead);
        if (S.heads === T.heads) $("teacher-head").closest("label").hidden = true;
        const sides = [
            ["teacher", attention(T, at.teacherLayer, at.teacherHead), `Teacher, layer ${at.teacherLayer}, ${headName(at.teacherHead)}`],
            ["student", attention(S, at.layer, at.head), `${S.name}, layer ${at.layer}, ${headName(at.head)}`],
        ];
        for (const [who, p, named] of sides) drawMap($(`${who}-map`), p, named);
        $("readings").replaceChildren(...sides.map(([who, p]) => reading(who, p[at.token])));
        const most = (row) => row.map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]).slice(0, 3).map(([p, i]) => `${tokens()[i]} ${p.toFixed(2)}`).join(", ");
        $("attention-readout").textContent = `From ${tokens()[at.token]}, teacher (layer ${at.teacherLayer}, ${headName(at.teacherHead)}): ${most(sides[0][1][at.token])}; `
            + `student (layer ${at.layer}, ${headName(at.head)}): ${most(sides[1][1][at.token])}.`;
    }

    const clipped = (token) => (token.length > 11 ? `${token.slice(0, 10)}…` : token);

    function drawMap(figure, p, named) {
        const svg = figure.querySelector("svg"), L = p.length, words = tokens();
        figure.querySelector("figcaption").textContent = named;
        const width = Math.max(260, figure.clientWidth), label = Math.min(84, 14 + 6.4 * Math.max(...words.map((w) => clipped(w).length)));
        const cell = Math.min(32, (width - label - 2) / L), size = Math.min(12, Math.max(7.5, cell * 0.9));
        svg.setAttribute("viewBox", `0 0 ${width} ${label + cell * L + 2}`);
        svg.replaceChildren(make("rect", { class: "frame", x: label, y: label, width: cell * L, height: cell * L }));
        p.forEach((row, i) => {
            const y = label + i * cell, x = label + i * cell + cell / 2 + size / 3, asked = i === at.token ? "asked" : "";
            svg.append(make("text", { x: label - 5, y: y + cell / 2 + size / 3, "text-anchor": "end", "font-size": size, class: asked }, clipped(words[i])));
            svg.append(make("text", { x, y: label - 5, "font-size": size, transform: `rotate(-90 ${x} ${label - 5})` }, clipped(words[i])));
            row.forEach((value, j) => {
                if (value < 0.002) return;
                svg.append(make("rect", { class: "cell", x: label + j * cell, y, width: cell - 0.6, height: cell - 0.6, "fill-opacity": Math.sqrt(value).toFixed(3) }));
            });
        });
        svg.append(make("rect", { class: "row", x: label - 1, y: label + at.token * cell - 0.8, width: cell * L + 2, height: cell + 1 }));
        svg.onclick = (event) => {
            const box = svg.getBoundingClientRect();
            const i = Math.floor((((event.clientY - box.top) / box.height) * (label + cell * L + 2) - label) / cell);
            if (i >= 0 && i < L) set({ token: i });
        };
    }

    /** The sentence, each piece as dark as it is attended to. */
    function reading(who, row) {
        const pieces = row.map((p, i) => {
            const piece = make("span", { class: `${who}${i === at.token ? " asked" : ""}`, style: `--v: ${(0.75 * Math.sqrt(p)).toFixed(3)}` }, make("em", {}, tokens()[i]));
            piece.addEventListener("click", () => set({ token: i }));
            return piece;
        });
        return make("div", { class: "reading" }, make("b", {}, who), make("div", { class: "pieces" }, ...pieces));
    }

    function set(changes) {
        Object.assign(at, changes);
        if ("layer" in changes && at.layer >= 1 && at.layer <= student().layers) at.teacherLayer = learned(at.layer);
        showAttention();
    }

    /** One student for the sections on attention and on layers. */
    function choose(value) {
        const [own, number] = value.split(" ").map(Number);
        const other = own !== at.lesson;
        Object.assign(at, { lesson: own, student: number, ...(other ? { sentence: 0, token: 1 } : {}) });
        for (const id of ["student", "layers-student"]) $(id).value = value;
        document.querySelectorAll(".of-student").forEach((block) => (block.hidden = block.dataset.student !== value));
        set({ layer: at.layer });
    }

    if (figures.lessons.length) {
        const numbers = { sentence: "sentence", layer: "layer", "teacher-layer": "teacherLayer", head: "head", "teacher-head": "teacherHead" };
        for (const [id, name] of Object.entries(numbers)) $(id).addEventListener("change", (event) => set({ [name]: Number(event.target.value) }));
        for (const id of ["student", "layers-student"]) {
            $(id).addEventListener("change", (event) => choose(event.target.value));
            $(id).closest("label").hidden = $(id).options.length < 2;
        }
        $("maps-view").addEventListener("keydown", (event) => {
            const change = {
                ArrowUp: { token: at.token - 1 }, ArrowDown: { token: at.token + 1 }, Home: { token: 0 }, End: { token: tokens().length - 1 },
                ArrowLeft: { head: at.head - 1, teacherHead: at.teacherHead - 1 }, ArrowRight: { head: at.head + 1, teacherHead: at.teacherHead + 1 },
                PageUp: { layer: Math.max(1, at.layer - 1) }, PageDown: { layer: Math.min(student().layers, at.layer + 1) },
            }[event.key];
            if (!change || event.ctrlKey || event.metaKey || event.altKey) return;
            event.preventDefault();
            set(change);
        });
        document.querySelector(".scale").append(...[0.01, 0.1, 0.25, 0.5, 1].map((p) => make("span", {}, make("i", { style: `opacity: ${Math.sqrt(p)}` }), String(p))));
        choose([...$("student").options].at(-1).value);
        new ResizeObserver(showAttention).observe($("maps-view"));
    }

    // -------------------------------------------------------------------------------------------------------------- maps

    const hex = (name) => [1, 3, 5].map((i) => parseInt((getComputedStyle(document.documentElement).getPropertyValue(name).trim() + "000000").slice(i, i + 2), 16));

    /** A map's entries: one colour above 0, one below, the page's where they are 0. */
    function paint(canvas) {
        const own = figures.maps[canvas.dataset.map], [rows, columns] = own.size;
        const bytes = new Int8Array(decoded(own.entries).buffer), [plus, minus, zero] = ["--plus", "--minus", "--empty"].map(hex);
        Object.assign(canvas, { width: columns, height: rows });
        const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
        bytes.forEach((value, i) => {
            const share = Math.min(1, Math.sqrt(Math.abs(value) / 127)), colour = value > 0 ? plus : minus;
            for (let c = 0; c < 3; c++) image.data[4 * i + c] = zero[c] + share * (colour[c] - zero[c]);
            image.data[4 * i + 3] = 255;
        });
        context.putImageData(image, 0, 0);
    }
    const paintAll = () => document.querySelectorAll("canvas[data-map]").forEach(paint);
    paintAll();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);
    document.querySelectorAll("[data-values]").forEach((host) => {
        const values = figures.maps[host.dataset.values].values;
        host.append(chart([{ name: "singular value", x: range(values.length), y: values, colour: "student", thin: true }], { title: "Singular values", along: "number", zero: true }));
    });

    // ----------------------------------------------------------------------------------------------------------- answers

    document.querySelectorAll("[data-reliability]").forEach((host) => {
        const models = figures.groups[host.dataset.reliability].filter((model) => model.reliability);
        const most = Math.max(...models.flatMap((model) => model.reliability.counts));
        host.append(...models.map(({ name, reliability: r }) => chart(
            [{ name, x: r.confidence, y: r.right, colour: figures.colours[name] || "grey", sizes: r.counts.map((n) => 3 + 9 * Math.sqrt(n / most)) }],
            { title: name, along: "how probable it takes its answer to be", unit: true },
        )));
    });
    document.querySelectorAll("[data-scatter]").forEach((host) => {
        const models = figures.groups[host.dataset.scatter].filter((model) => model.scatter);
        host.append(...models.map(({ name, scatter }) => chart(
            [{ name, x: scatter[0], y: scatter[1], colour: figures.colours[name] || "grey", dots: true }],
            { title: name, along: "right", square: true, mute: true },
        )));
    });
    document.querySelectorAll('input[name^="who-"]').forEach((input) => input.addEventListener("change", () => {
        const list = input.closest(".controls").nextElementSibling;
        for (const item of list.children) item.hidden = input.value !== "all" && item.dataset.who !== input.value;
    }));
})();
