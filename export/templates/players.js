"use strict";
// One player plays at a time; its spectrogram shows the position, and a click on it seeks.
function equipPlayers(root) {
  for (const tile of root.querySelectorAll(".tile")) {
    const audio = tile.querySelector("audio");
    if (!audio) continue;
    const frame = tile.querySelector(".frame");
    const head = tile.querySelector(".head");
    const show = () => {
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
      if (!audio.paused) requestAnimationFrame(show);
    };
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      tile.classList.add("playing");
      show();
    });
    audio.addEventListener("pause", () => tile.classList.remove("playing"));
    audio.addEventListener("seeked", show);
    // The audio element handles the keyboard; this is a shortcut for the mouse.
    frame.addEventListener("click", (event) => {
      const box = frame.getBoundingClientRect();
      audio.currentTime = ((event.clientX - box.left) / box.width) * audio.duration;
      audio.play();
    });
    frame.classList.add("seeks");
  }
}
