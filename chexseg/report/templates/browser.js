// The browser of test images: thumbnails with true and false pixels, a filter, an order, a zoom.
const PAGE_OF_THUMBS = 60;
const loaded = new Map();  // "study number" -> promise of an image, or its resolve function
function showImage(study, number, image) {  // called by the images' files
  loaded.get(`${study} ${number}`).resolve(image);
}
function load(index, number) {
  const key = `${index.study} ${number}`;
  if (!loaded.has(key)) {
    const entry = {};
    entry.image = new Promise((resolve, reject) => {
      entry.resolve = image => {
        image.picture = new Image();
        image.picture.src = image.film;
        image.picture.decode().then(() => resolve(image), reject);
      };
      const script = element("script");
      script.src = `${index.folder}/${String(number).padStart(5, "0")}.js`;
      script.onerror = () => reject(new Error("not beside this page"));
      document.head.append(script);
    });
    loaded.set(key, entry);
  }
  return loaded.get(key).image;
}
// COCO's run lengths: column by column, in base 32, from the third on as differences.
function decode(text, [height, width]) {
  const mask = new Uint8Array(height * width), runs = [];
  for (let at = 0; at < text.length;) {
    let run = 0, shift = 0, code;
    do {
      code = text.charCodeAt(at++) - 48;
      run |= (code & 31) << shift;
      shift += 5;
    } while (code & 32);
    if (code & 16) run |= -1 << shift;
    runs.push(runs.length > 2 ? run + runs.at(-2) : run);
  }
  let pixel = 0;
  runs.forEach((run, number) => {
    for (const end = pixel + run; pixel < end; pixel++)
      if (number % 2) mask[(pixel % height) * width + Math.floor(pixel / height)] = 1;
  });
  return mask;
}
// Return the class of each pixel: 0, 1 (true), 2 (false), or 3 (the experts' line).
function classes(image, cell, pathologies) {
  const [height, width] = image.size, out = new Uint8Array(height * width);
  const predicted = cell < 0 ? {} : image.cells[cell];
  for (const k of pathologies) {
    const none = new Uint8Array(out.length);
    const expert = k in image.experts ? decode(image.experts[k], image.size) : none;
    const masked = k in predicted ? decode(predicted[k], image.size) : none;
    out.forEach((_, p) => { if (masked[p]) out[p] = Math.max(out[p], expert[p] ? 1 : 2); });
    image.lines ??= {};
    image.lines[k] ??= expert.map((inside, p) => inside && !(
      p % width && (p + 1) % width && expert[p - 1] && expert[p + 1] &&
      expert[p - width] && expert[p + width]));
  }
  for (const k of pathologies) image.lines[k].forEach((line, p) => { if (line) out[p] = 3; });
  return out;
}
// Okabe and Ito's sky and orange; false pixels are also striped, for those who see no colours.
const PAINT = [null, [86, 180, 233, 120], [230, 159, 0, 190], [255, 255, 255, 255]];
function paint(canvas, image, cell, pathologies) {
  const [height, width] = image.size, context = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width, height];
  const layer = new ImageData(width, height);
  classes(image, cell, pathologies).forEach((kind, p) => {
    if (!kind) return;
    layer.data.set(PAINT[kind], 4 * p);
    if (kind === 2 && (p % width + Math.floor(p / width)) % 6 > 2) layer.data[4 * p + 3] = 60;
  });
  context.drawImage(image.picture, 0, 0);
  createImageBitmap(layer).then(bitmap => context.drawImage(bitmap, 0, 0));
}
function score(index, number, cell, pathology) {
  const iou = index.iou[number][cell];
  if (pathology !== "") return iou[pathology] < 0 ? NaN : iou[pathology] / 1e6;
  const drawn = index.drawn[number].map(k => iou[k]);
  return drawn.length ? drawn.reduce((sum, x) => sum + x, 0) / drawn.length / 1e6 : NaN;
}
const scoreText = value => Number.isNaN(value) ? "no expert mask" : `IoU ${value.toFixed(2)}`;

function browse(browser) {
  const index = JSON.parse(document.getElementById(browser.dataset.index).textContent);
  const choice = name => browser.querySelector(`select[name=${name}]`).value;
  const thumbs = browser.querySelector(".thumbs"), more = browser.querySelector(".more");
  const every = index.pathologies.map((_, k) => k);
  const chosen = () => choice("pathology") === "" ? every : [Number(choice("pathology"))];
  let order = [];
  const near = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      const cell = Number(choice("cell")), pathologies = chosen();
      load(index, Number(target.dataset.number)).then(
        image => paint(target.querySelector("canvas"), image, cell, pathologies),
        error => { target.querySelector("canvas").replaceWith(element("em", error.message)); });
    }
  }, {rootMargin: "300px"});
  function show(count) {
    for (const [number, value] of order.slice(thumbs.childElementCount, count)) {
      const thumb = element("button", undefined, "thumb");
      thumb.dataset.number = number;
      thumb.append(element("canvas"), element("span", scoreText(value), "score"),
                   element("small", index.images[number]));
      thumb.addEventListener("click", () => open(number));
      thumbs.append(thumb);
      near.observe(thumb);
    }
    more.hidden = thumbs.childElementCount >= order.length;
  }
  function arrange() {
    const cell = Number(choice("cell")), pathology = choice("pathology");
    order = index.images.map((_, number) => [number, score(index, number, cell, pathology)]);
    if (pathology !== "") order = order.filter(([, value]) => !Number.isNaN(value));
    const sign = {worst: 1, best: -1, id: 0}[choice("order")];
    order.sort(([a, x], [b, y]) =>
      (Number.isNaN(x) - Number.isNaN(y)) * Math.abs(sign) || sign * (x - y) || a - b);
    browser.querySelector("output").textContent =
      `${order.length} image${order.length === 1 ? "" : "s"}`;
    thumbs.replaceChildren();
    show(PAGE_OF_THUMBS);
  }
  function open(number) {
    const dialog = document.getElementById("image-dialog"), pathologies = chosen();
    const place = order.findIndex(([other]) => other === number);
    const panels = dialog.querySelector(".panels");
    dialog.querySelector("h2").textContent = index.images[number];
    dialog.querySelector(".note").textContent = "Experts drew: " + (index.drawn[number]
      .map(k => index.pathologies[k]).join(", ") || "nothing") + ". Click to zoom in, up to four times.";
    panels.replaceChildren();
    panels.style.setProperty("--zoom", 1);
    dialog.onkeydown = event => {
      const next = order[place + ({ArrowLeft: -1, ArrowRight: 1}[event.key] ?? NaN)];
      if (next) open(next[0]);
    };
    load(index, number).then(image => {
      const titles = [["radiograph", -1, []], ["experts", -1, pathologies],
        ...index.cells.map((name, cell) => [name, cell, pathologies])];
      for (const [title, cell, shown] of titles) {
        const panel = element("figure"), frame = element("div", undefined, "frame");
        const canvas = element("canvas"), text = cell < 0 ? title
          : `${title}: ${scoreText(score(index, number, cell, choice("pathology")))}`;
        frame.append(canvas);
        panel.append(frame, element("figcaption", text));
        panels.append(panel);
        if (typeof image.cells[cell] === "string") frame.replaceChildren(image.cells[cell]);
        else paint(canvas, image, cell, shown);
      }
    }, error => panels.append(element("p", error.message)));
    if (!dialog.open) dialog.showModal();
  }
  browser.querySelectorAll("select").forEach(select => select.addEventListener("change", arrange));
  more.addEventListener("click", () => show(thumbs.childElementCount + PAGE_OF_THUMBS));
  arrange();
}
// All panels zoom together, around the point of a click: 1, 2, 4 and 1 again.
document.querySelector("#image-dialog .panels").addEventListener("click", event => {
  const frame = event.target.closest(".frame"), panels = event.currentTarget;
  if (!frame) return;
  const box = frame.getBoundingClientRect(), zoom = Number(panels.style.getPropertyValue("--zoom"));
  if (zoom === 1) {
    panels.style.setProperty("--x", `${100 * (event.clientX - box.x) / box.width}%`);
    panels.style.setProperty("--y", `${100 * (event.clientY - box.y) / box.height}%`);
  }
  panels.style.setProperty("--zoom", zoom < 4 ? 2 * zoom : 1);
});
document.querySelectorAll(".browser").forEach(browse);
