// Counts the time of a lockout down. Without it the page says the time in words, and stays as it is.
(() => {
  "use strict";
  const clock = document.querySelector("[data-axes-seconds]");
  if (!clock) return;
  const end = Date.now() + Number(clock.dataset.axesSeconds) * 1000;
  const day = 86400;

  const show = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    if (left <= 0) {
      clearInterval(timer);
      document.documentElement.classList.add("axes-over");
      const status = document.querySelector("[data-axes-over]");
      if (status) status.textContent = status.dataset.axesOver;
    } else if (left < day) {
      const parts = [Math.floor(left / 60) % 60, left % 60].map((part) => String(part).padStart(2, "0"));
      clock.textContent = [Math.floor(left / 3600), ...parts].slice(left < 3600 ? 1 : 0).join(":");
    }
  };
  const timer = setInterval(show, 1000);
  show();
})();
