// The body of a function, run for each explorer shown: `this` is its style element, which has loaded.
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
    if (!handle.matches(".noUi-handle")) handle.setAttribute("aria-valuenow", parseFloat(handle.style.left));
    readout.tabIndex = -1;
  }
  all("img.didiff-picture").forEach(picture => { picture.alt = alt; });
  all(".didiff-more").forEach(button =>
    button.setAttribute("aria-expanded", button.classList.contains("mod-active")));
};

// A moved control must be heard of by the kernel, which counts what it hears in the box's class.
const standing = () => all(".widget-readout, select, input, .mod-active:not(.didiff-more)")
  .map(part => part.type === "checkbox" ? part.checked : part.value || part.textContent).join("|");
const heard = () => (box.className.match(/didiff-heard-\d+/) || [""])[0];
let stood = standing(), last = heard(), parts = all("*").length, alarm;
const watch = () => {
  nameParts();
  if (heard() !== last) {
    last = heard();
    clearTimeout(alarm);
    alarm = undefined;
    if (notice.textContent) notice.textContent = "";
  }
  const present = all("*").length;  // while the parts are still arriving, nobody moves them
  if (standing() !== stood && present === parts) alarm = alarm || setTimeout(() => {
    notice.textContent = "No answer: the kernel is busy, or it was restarted. Then run the cell again.";
  }, 1500);
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
  window.didiffKeys = event => {
    const control = event.target.closest && event.target.closest(".didiff-explorer [tabindex], .didiff-explorer select, .didiff-explorer input");
    if (control) control.toggleAttribute("data-lm-suppress-shortcuts", /^(Arrow|Home|End|Page)/.test(event.key));
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
  for (const part of [page, box.querySelector(".didiff-controls")]) new ResizeObserver(fit).observe(part);
  new IntersectionObserver(fit).observe(box);  // what is out of sight may miss a change of size
  box.addEventListener("load", fit, true);  // of the picture: a load does not rise, but is caught
}
