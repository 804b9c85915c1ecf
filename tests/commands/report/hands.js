// Put after it: clicks, types, and leaves what it sees in #seen for test_browser.py.
const seen = {}, $ = (id) => document.getElementById(id), text = (id) => $(id).textContent;
/** Until all charts are drawn, which they are in a frame of their own. */
const frame = async () => {
    for (let i = 0; i < 100; i++) {
        await new Promise((done) => setTimeout(done, 50));
        if ([...document.querySelectorAll(".chart svg")].every((svg) => svg.childElementCount)) return;
    }
    wrong.push("a chart was not drawn");
};
const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const pick = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change", { bubbles: true })); };
const click = (name, value) => document.querySelector(`input[name="${name}"][value="${value}"]`).click();
const captions = () => ["teacher-map", "student-map"].map((id) => $(id).querySelector("figcaption").textContent);
const opacities = (id) => [...$(id).querySelectorAll("rect.cell")].map((cell) => Number(cell.getAttribute("fill-opacity")));
const charts = (id) => [...$(id).querySelectorAll("figure.chart")];
const steps = {
    start() {
        seen.captions = captions();
        seen.readout = text("attention-readout");
        seen.cells = [opacities("teacher-map"), opacities("student-map")];
        seen.labels = [...document.querySelectorAll("#teacher-map text")].map((label) => label.textContent);
        seen.sentences = [...$("sentence").options].map((option) => option.textContent);
        seen.titles = charts("curves").map((figure) => figure.querySelector("strong").textContent);
        seen.paths = charts("curves").map((figure) => [...figure.querySelectorAll("svg[tabindex] path")].map((path) => path.getAttribute("d")));
        seen.markup = document.querySelectorAll("main b, main script").length - document.querySelectorAll(".score b, .reading b").length;
        seen.hidden = ["student", "sentence", "layer", "teacher-layer", "head", "teacher-head"].filter((id) => $(id).closest("label").hidden);
    },
    keys() {
        pick("student", "0 0");
        seen.general = captions();
        const view = $("maps-view");
        view.focus();
        seen.focused = document.activeElement === view && getComputedStyle(view).outlineStyle;
        for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "PageDown"]) press(view, key);
        seen.after = [captions(), text("attention-readout"), $("head").value, $("layer").value, $("teacher-layer").value];
        for (let i = 0; i < 30; i++) press(view, "ArrowDown");
        for (let i = 0; i < 3; i++) press(view, "ArrowRight"), press(view, "PageDown");
        seen.ends = [captions(), text("attention-readout").split(",")[0], document.querySelectorAll(".pieces .asked").length];
        press(view, "Home");
        seen.home = text("attention-readout").split(",")[0];
    },
    choices() {
        pick("student", "1 1");
        seen.student = [captions(), $("layers-student").value, [...document.querySelectorAll(".of-student")].filter((b) => !b.hidden).length];
        pick("sentence", "1");
        pick("layer", "1");
        pick("head", "0");
        seen.pair = [captions(), [...document.querySelectorAll("#readings .reading:first-child em")].map((piece) => piece.textContent)];
        pick("teacher-layer", "1");
        seen.other = captions();
        document.querySelectorAll("#readings .reading:first-child .pieces span")[2].click();
        seen.clicked = text("attention-readout").split(",")[0];
    },
    async curves() {
        const before = charts("curves").map((figure) => figure.innerHTML);
        click("scale", "log");
        await frame();
        seen.log = charts("curves").filter((figure, i) => figure.innerHTML !== before[i]).map((figure) => figure.querySelector("strong").textContent);
        click("axis", "epochs");
        await frame();
        click("scale", "linear");
        press(charts("curves")[0].querySelector("svg[tabindex]"), "End"); // before it is drawn
        await frame();
        const chart = charts("curves")[0].querySelector("svg[tabindex]");
        chart.focus();
        press(chart, "Home");
        press(chart, "ArrowRight");
        seen.read = charts("curves")[0].querySelector(".readout").textContent;
        seen.layers = charts("layer-curves").map((figure) => figure.querySelectorAll("svg[tabindex] g path").length);
        pick("layered", "2 0");
        await frame();
        seen.readable = charts("layer-curves").length;
    },
    parts() {
        const shown = () => [...document.querySelectorAll(".parted li")].filter((item) => !item.hidden).map((item) => item.dataset.who);
        const all = shown();
        click("who-0-0", "teacher");
        seen.parted = [all, shown()];
        const canvas = document.querySelector("canvas");
        seen.canvas = [canvas.width, canvas.height, new Set(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data).size];
        seen.dots = document.querySelectorAll("[data-reliability] circle").length;
        const names = [...document.querySelectorAll("select, input, svg[tabindex], [role=group]")].filter((part) =>
            !(part.labels?.length || part.getAttribute("aria-label") || part.closest("fieldset, label")));
        seen.unnamed = names.map((part) => part.outerHTML.slice(0, 80));
        const reached = document.querySelectorAll("a[href], select, input, summary, [tabindex]");
        seen.reached = [...reached].every((part) => part.tabIndex >= 0);
    },
    width() {
        seen.width = [innerWidth, document.documentElement.scrollWidth];
        seen.dark = getComputedStyle(document.body).backgroundColor;
    },
};
(async () => {
    await frame();
    for (const step of Object.values(steps)) {
        try { await step(); } catch (error) { wrong.push(`${step.name}: ${error.stack}`); }
        await frame();
    }
    const out = document.createElement("pre");
    out.id = "seen";
    out.textContent = JSON.stringify({ ...seen, wrong });
    document.body.append(out);
})();
