// What a screen reader or a keyboard needs and the theme leaves out.
function accessible() {
  for (const part of document.querySelectorAll("pre, article table, .table-wrapper, .math")) {
    // What scrolls sideways can be reached by Tab, and then be moved with the arrow keys.
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
  for (const caption of document.querySelectorAll('.caption[role="heading"]')) caption.ariaLevel = "2";
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Contents of the site");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "Contents of this page");
}
window.addEventListener("load", accessible);
window.addEventListener("resize", accessible);
// On paper nothing can be opened: answers and hints are printed.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
