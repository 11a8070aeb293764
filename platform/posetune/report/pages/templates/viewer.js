// Turns predicted poses about the vertical axis, beside the pictures that the model saw.
(() => {
"use strict";
const { limbs, names, poses, pictures } = JSON.parse(document.getElementById("page-data").textContent);
const canvas = document.getElementById("pose"), pen = canvas.getContext("2d");
const [slider, name, seen] = ["place", "name", "seen"].map(id => document.getElementById(id));
const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const COLOURS = {
  light: { left: "#0072b2", right: "#a36a00", middle: "#1b1b1b" },
  dark: { left: "#56b4e9", right: "#e6a935", middle: "#f2f2f2" },
};
const reach = Math.max(...poses.flat().map(([x, y, z]) => Math.hypot(x, y, z)), 1e-6);
let place = 0, around = 0, above = 0, playing = !still && poses.length > 1, turning = !still;

function draw() {
  const scale = canvas.width / 2 / (1.1 * reach), middle = canvas.width / 2;
  const [sin, cos, up, level] = [Math.sin(around), Math.cos(around), Math.sin(above), Math.cos(above)];
  const turned = poses[place].map(([x, y, z]) => {
    const [a, b] = [x * cos + z * sin, z * cos - x * sin];
    return [middle + scale * a, middle + scale * (y * level - b * up), b * level + y * up];
  });
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineWidth = 9;
  pen.lineCap = "round";
  const depth = ([child, parent]) => turned[child][2] + turned[parent][2];
  for (const [child, parent, side] of [...limbs].sort((a, b) => depth(b) - depth(a))) {
    pen.strokeStyle = COLOURS[dark.matches ? "dark" : "light"][side];
    pen.beginPath();
    pen.moveTo(...turned[child].slice(0, 2));
    pen.lineTo(...turned[parent].slice(0, 2));
    pen.stroke();
  }
}

function show(next) {
  place = (next + poses.length) % poses.length;
  slider.value = place;
  name.textContent = names[place];
  seen.src = `data:image/jpeg;base64,${pictures[place]}`;
  document.documentElement.dataset.place = place;
  draw();
}

let last = 0, shown = 0;
function tick(now) {
  const seconds = Math.min(0.1, (now - last) / 1000);
  last = now;
  if (turning) around += 0.6 * seconds;
  if (playing && now - shown > 120) { shown = now; show(place + 1); } else if (turning) draw();
  requestAnimationFrame(tick);
}

function toggle(id, words, get, set) {
  const button = document.getElementById(id);
  const label = () => { button.textContent = words[Number(get())]; };
  button.addEventListener("click", () => { set(!get()); label(); });
  label();
}
toggle("play", ["Play", "Pause"], () => playing, value => { playing = value; });
toggle("turn", ["Turn", "Stop turning"], () => turning, value => { turning = value; });
slider.addEventListener("input", () => { document.getElementById("play").textContent = "Play";
  playing = false; show(Number(slider.value)); });
addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target !== slider) show(place + step);
});
canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", event => {
  if (!event.buttons) return;
  around += event.movementX / 120;
  above = Math.max(-1.5, Math.min(1.5, above + event.movementY / 120));
  draw();
});
dark.addEventListener("change", draw);
show(0);
requestAnimationFrame(tick);
})();
