// The body of a function, run for each explorer shown: `this` is its style element, now loaded.
const box = this.closest(".didiff-explorer"), stage = this.closest(".didiff-stage");
const alt = this.dataset.alt, notice = this.nextElementSibling;
if (!box || box.didiff) return;  // a page that moves the element loads it again
box.didiff = true;
const all = selector => [...box.querySelectorAll(selector)];

// Names for what ipywidgets leaves nameless, and one Tab stop for each slider.
const nameParts = () => {
  for (const handle of all(".noUi-handle, .ui-slider-handle")) {
    const slider = handle.closest(".widget-inline-hbox");
    const readout = slider.querySelector(".widget-readout");
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", slider.querySelector(".widget-label").textContent);
    handle.setAttribute("aria-valuetext", readout.textContent);
    if (handle.matches(".ui-slider-handle"))  // of ipywidgets 7
      handle.setAttribute("aria-valuenow", parseFloat(handle.style.left));
    readout.tabIndex = -1;
  }
  for (const picture of all("img.didiff-picture")) picture.alt = alt;
  for (const button of all(".didiff-more"))
    button.setAttribute("aria-expanded", button.classList.contains("mod-active"));
};

// The kernel counts the moves it hears of in the box's class: a move that it does not hear of, in
// whatever way it got lost, is told to the reader, and so is a kernel that the page knows is gone.
const standing = () => all(".widget-readout, select, input, .mod-active:not(.didiff-more)")
  .map(part => part.type === "checkbox" ? part.checked : part.value || part.textContent).join("|");
const heard = () => (box.className.match(/didiff-heard-\d+/) || [""])[0];
const say = words => { if (notice.textContent !== words) notice.textContent = words; };
let stood = standing(), last = heard(), parts = all("*").length, alarm;
const watch = () => {
  nameParts();
  const gone = box.classList.contains("jupyter-widgets-disconnected");
  if (heard() !== last) {
    [last, alarm] = [heard(), clearTimeout(alarm)];
    say("");
  }
  if (gone) say("The kernel was restarted or has ended: run the cell again.");
  const present = all("*").length;  // while parts are still arriving, nobody moves them
  if (standing() !== stood && present === parts && !alarm && !gone)
    alarm = setTimeout(say, 1500,
      "No answer: the kernel is busy or gone. If gone, run the cell again.");
  [stood, parts] = [standing(), present];
};
new MutationObserver(watch).observe(box, {
  subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["class"],
});
box.addEventListener("change", watch);
watch();

// Keys that move a slider are not the notebook's: it looks for this attribute before it takes them.
// On the window, as a notebook may listen before anything inside its page; once for all explorers.
if (!window.didiffKeys) {
  const controls = ".didiff-explorer :is([tabindex], select, input)";
  window.didiffKeys = event => {
    const control = event.target.closest && event.target.closest(controls);
    const slides = /^(Arrow|Home|End|Page)/.test(event.key);
    if (control) control.toggleAttribute("data-lm-suppress-shortcuts", slides);
  };
  window.addEventListener("keydown", window.didiffKeys, true);
}

// Controls and picture fit together into the notebook's window, where the page is a notebook. How
// wide the picture would be if it had all the height decides whether the controls stand beside it.
const page = box.closest(".jp-WindowedPanel-outer, .jp-Notebook, #site");
const fit = () => requestAnimationFrame(() => {
  const height = page.clientHeight - 12, picture = box.querySelector("img.didiff-picture");
  if (!picture || !picture.naturalHeight) return;
  stage.style.maxWidth = height * picture.naturalWidth / picture.naturalHeight + "px";
  const above = stage.getBoundingClientRect().top - box.getBoundingClientRect().top;
  picture.style.maxHeight = Math.max(160, height - above) + "px";
});
if (page) {
  const sizes = new ResizeObserver(fit);
  for (const part of [page, box.querySelector(".didiff-controls")]) sizes.observe(part);
  new IntersectionObserver(fit).observe(box);  // what is out of sight may miss a change of size
  box.addEventListener("load", fit, true);  // of the picture: a load does not rise, but is caught
}
