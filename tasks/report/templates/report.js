const $ = (selector, from = document) => [...from.querySelectorAll(selector)];
document.documentElement.classList.add("js");

// Sliders: the handle says how much of the left picture covers the right one.
const slide = (range) => {
  const set = () => range.parentElement.style.setProperty("--cut", range.value + "%");
  range.addEventListener("input", set);
  set();
};
$(".hero input").forEach(slide);

const list = document.querySelector(".cards");
if (list) {
  const control = (name) => document.getElementById("tool-" + name);
  const cards = $(".card", list);
  const pictures = (card) => Object.fromEntries($(".tile[data-column]", card).map((tile) => [tile.dataset.column, tile]));
  const compared = (card) => {
    const tiles = pictures(card), stack = card.querySelector(".stack"), range = stack.querySelector("input");
    const [left, right] = ["left", "right"].map((side) => tiles[control(side).value]?.querySelector("img"));
    $("img", stack).forEach((img) => img.remove());
    card.querySelector(".compare").hidden = !left || !right;
    if (!left || !right) return;
    for (const img of [right, left]) {
      const copy = img.cloneNode();
      copy.alt = "";
      stack.insertBefore(copy, range);
    }
    const of = (img) => [img.getAttribute("width"), img.getAttribute("height")];
    const [width, height] = of(right);
    card.querySelector(".compare").style.setProperty("--w", width + "px");
    stack.style.aspectRatio = width + " / " + height;
    card.querySelector(".sides").textContent = control("left").value + " left, " + control("right").value + " right";
  };
  $(".card .stack input").forEach(slide);

  const view = () => (list.dataset.view = control("view").value);
  const zoom = () => list.style.setProperty("--zoom", control("zoom").value);
  const number = (card, key) => (key === "order" ? card.dataset.order : card.dataset["n" + key]);
  const sort = () => {
    const option = control("sort").selectedOptions[0], sign = option.dataset.way === "down" ? -1 : 1;
    const value = (card) => number(card, option.value) ?? (sign > 0 ? Infinity : -Infinity);
    cards.sort((a, b) => sign * (value(a) - value(b)) || a.dataset.order - b.dataset.order);
    list.append(...cards);
  };
  const filter = () => {
    const outcome = control("outcome").value, words = control("id").value.toLowerCase();
    for (const card of cards)
      card.hidden = !(
        (!outcome || card.dataset.outcome === outcome || (outcome === "doubtful" && card.classList.contains("doubtful"))) &&
        card.dataset.id.toLowerCase().includes(words)
      );
    const seen = cards.filter((card) => !card.hidden).length;
    control("count").textContent = seen + " of " + cards.length + " shown";
  };
  // A link to a face must show it, whatever is filtered.
  const arrive = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (!card || !card.hidden) return;
    control("outcome").value = control("id").value = "";
    filter();
    card.scrollIntoView();
  };
  const compareAll = () => cards.forEach(compared);
  for (const [name, act] of Object.entries({ view, zoom, sort, outcome: filter, left: compareAll, right: compareAll }))
    control(name).addEventListener("change", act);
  control("id").addEventListener("input", filter);
  addEventListener("hashchange", arrive);
  for (const act of [compareAll, view, zoom, filter, arrive]) act();
  document.querySelector(".tools").hidden = false;
}
addEventListener("beforeprint", () => $("details").forEach((part) => (part.open = true)));
